"""`Hub`: one thread that waits for what all actors say."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Answered", "Hub"]

TURN_SECONDS = 0.1
"""How long is waited at a time: then what has been asked meanwhile is waited for too."""

END_SECONDS = 10.0

Answered = Callable[[Any, Exception | None], None]
"""Takes the answer of a call, or the error that it has instead."""


class Hub:
    """Waits for calls of actors, in one thread.

    Args:
        ray: the module, connected.
        tick: is called after each turn, in that thread.
        broken: is called, in that thread, with what Ray raises when nothing can be waited for any more.
    """

    def __init__(self, ray: Any, tick: Callable[[], None], broken: Callable[[Exception], None]) -> None:
        self._ray = ray
        self._tick = tick
        self._broken = broken
        self._lock = threading.Lock()
        self._asked: dict[Any, Answered] = {}
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._wait, name="stillhouse-ray", daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def close(self) -> None:
        """End. Calls that have no answer get none."""
        self._ends.set()
        if self._thread.ident is not None:
            self._thread.join(END_SECONDS)

    def ask(self, call: Any, answered: Answered) -> None:
        """Wait for a call of an actor; `answered` is called in the thread of the hub."""
        with self._lock:
            self._asked[call] = answered

    def _wait(self) -> None:
        while not self._ends.is_set():
            try:
                for call in self._answered():
                    self._answer(call)
                self._tick()
            except Exception as error:
                if not self._ends.is_set():
                    self._broken(error)
                return

    def _answered(self) -> list[Any]:
        """Return the calls that have an answer; wait a turn for one."""
        with self._lock:
            calls = list(self._asked)
        if not calls:
            self._ends.wait(TURN_SECONDS)
            return []
        found, _ = self._ray.wait(calls, num_returns=1, timeout=TURN_SECONDS)
        if found and len(calls) > 1:
            found, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        return list(found)

    def _answer(self, call: Any) -> None:
        with self._lock:
            answered = self._asked.pop(call)
        error: Exception | None = None
        answer = None
        try:
            answer = self._ray.get(call)
        except Exception as raised:
            error = raised
        with contextlib.suppress(Exception):  # nothing of one worker may end the others
            answered(answer, error)
