"""The signals that ask a process to end, and how they are handled for a while.

Nothing is imported here that takes time: a command handles them from its first moment on.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

__all__ = ["ENDING_SIGNALS", "handle_signals", "restore_signals"]

# SIGBREAK exists on Windows only, SIGHUP everywhere else.
ENDING_SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")


def handle_signals(
    handler: Callable[[int, FrameType | None], object], names: Iterable[str] = ENDING_SIGNALS
) -> dict[signal.Signals, Any]:
    """Handle the signals of these names, on the main thread, and return their earlier handlers."""
    earlier = {}
    for name in names:
        number = getattr(signal, name, None)
        # `nohup` ignores SIGHUP, so that the command outlives its terminal.
        if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
            continue
        earlier[number] = signal.signal(number, handler)
    return earlier


def restore_signals(earlier: dict[signal.Signals, Any]) -> None:
    """Handle the signals as before; `earlier` is what `handle_signals` returned."""
    for number, handler in earlier.items():
        # It is `None` if it was not installed from Python.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
