"""`snapshot` and `changes`: the global state of the process, which a backend must leave alone."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

__all__ = ["changes", "snapshot"]


def snapshot() -> dict[str, Any]:
    """Return the state of the process, by readable names."""
    root = logging.getLogger()
    main = threading.current_thread() is threading.main_thread()
    policy = getattr(asyncio.events, "_event_loop_policy", None)
    is_own = policy is None or type(policy).__module__.partition(".")[0] == "asyncio"
    return {
        # pytest writes the test that runs into a variable of its own.
        "os.environ": {key: text for key, text in os.environ.items() if key != "PYTEST_CURRENT_TEST"},
        "the event-loop policy": None if is_own else policy,
        "the current event loop": getattr(getattr(policy, "_local", None), "_loop", None) if main else None,
        "asyncio.run": (asyncio.run, asyncio.new_event_loop, asyncio.BaseEventLoop.run_until_complete),
        "the level of the root logger": root.level,
        "the handlers of the root logger": list(root.handlers),
        "logging.disable": root.manager.disable,
        "signal handlers": [signal.getsignal(item) for item in (signal.SIGINT, signal.SIGTERM)],
        "sys.excepthook": (sys.excepthook, threading.excepthook),
        "the default timeout of sockets": socket.getdefaulttimeout(),
        "the working folder": Path.cwd(),
    }


def changes(before: dict[str, Any]) -> set[str]:
    """Return the names of what has changed."""
    after = snapshot()
    return {name for name in before if before[name] != after[name]}
