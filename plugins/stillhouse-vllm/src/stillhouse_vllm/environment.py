"""The environment of this process, which the engine changes, and which is put back."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["LOGGING", "TELEMETRY", "changed_environment", "wants_logs"]

LOGGING = ("VLLM_CONFIGURE_LOGGING", "VLLM_LOGGING_CONFIG_PATH", "VLLM_LOGGING_LEVEL")
"""The variables with which somebody says how the engine is to log."""

TELEMETRY = ("DO_NOT_TRACK", "VLLM_DO_NOT_TRACK", "VLLM_NO_USAGE_STATS")
"""The variables with which somebody says whether the engine may report that it is used."""

_lock = threading.RLock()


def wants_logs() -> bool:
    """Whether somebody has said how the engine is to log."""
    return any(os.environ.get(name) for name in LOGGING)


@contextmanager
def changed_environment(changes: Mapping[str, str | None]) -> Iterator[dict[str, str | None]]:
    """Change the environment, and put it back: also what others change inside this context.

    One thread at a time is in it.

    Args:
        changes: the values, `None` to take a variable away.

    Yields:
        A dict which afterwards holds what others changed.
    """
    others: dict[str, str | None] = {}
    with _lock:
        before = dict(os.environ)
        _apply(changes)
        changed = dict(os.environ)
        try:
            yield others
        finally:
            after = dict(os.environ)
            others.update(
                (name, after.get(name))
                for name in changed.keys() | after.keys()
                if after.get(name) != changed.get(name)
            )
            _apply(
                {
                    name: before.get(name)
                    for name in before.keys() | after.keys()
                    if before.get(name) != after.get(name)
                }
            )


def _apply(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
