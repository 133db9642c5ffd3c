"""`HeadWatch`: notices that the head of a cluster is gone.

Calls of Ray wait for it: for a minute by default, and then Ray ends this process, whatever that does.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from time import monotonic

from stillhouse_ray.addresses import ADDRESS

__all__ = ["HeadWatch"]

TRIES = 10
"""How often the head is tried while it may be out of reach."""

MAX_TURN_SECONDS = 3.0
"""How long is waited between two tries, and how long one may take."""


class HeadWatch:
    """Connects to the head again and again, in a thread of its own. A context manager.

    Args:
        address: where the head accepts connections.
        seconds: how long it may be out of reach.
        lost: is called once, in that thread, when it has been for longer.
    """

    def __init__(self, address: str, seconds: float, lost: Callable[[], None]) -> None:
        matched = ADDRESS.fullmatch(address)
        self._place = (matched["host"].strip("[]"), int(matched["port"])) if matched else None
        self._seconds = seconds
        self._lost = lost
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stillhouse-ray-head", daemon=True)

    def __enter__(self) -> None:
        if self._place is not None:
            self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._ends.set()
        if self._thread.ident is not None:
            self._thread.join(MAX_TURN_SECONDS)

    def _watch(self) -> None:
        turn = min(MAX_TURN_SECONDS, self._seconds / TRIES)
        reached = monotonic()
        while not self._ends.wait(turn):
            if self._answers():
                reached = monotonic()
            elif monotonic() > reached + self._seconds and not self._ends.is_set():
                self._lost()
                return

    def _answers(self) -> bool:
        assert self._place is not None
        try:
            with socket.create_connection(self._place, min(MAX_TURN_SECONDS, self._seconds)):
                return True
        except OSError:
            return False
