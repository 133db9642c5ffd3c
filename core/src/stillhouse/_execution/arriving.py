"""`Arriving`: inputs that another thread gives while they are taken."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stillhouse.protocols import Row, RowInputs

__all__ = ["Arriving"]


class Arriving(RowInputs):
    """Inputs that arrive while a call on an LLM works. One thread puts them, another one takes them.

    Args:
        has_arguments: whether an input may be an `InputWithArguments`.
    """

    def __init__(self, *, has_arguments: bool = False) -> None:
        self.has_arguments = has_arguments
        self._items: deque[Any] = deque()
        self._changed = threading.Condition()
        self._is_ended = False
        self._notify: Callable[[], Any] = lambda: None

    def put(self, inputs: Iterable[Any]) -> None:
        """Add inputs."""
        with self._changed:
            self._items.extend(inputs)
            self._changed.notify_all()
        self._notify()

    def end(self) -> None:
        """Say that no more will arrive."""
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()
        self._notify()

    @property
    def is_over(self) -> bool:
        """Whether every input was taken, and no more will arrive."""
        return self._is_ended and not self._items

    @property
    def is_due(self) -> bool:
        """Whether there is something to do: take an input, or end."""
        return self._is_ended or bool(self._items)

    def take(self, most: int) -> list[Any]:
        """Return the inputs that are there, at most so many."""
        items = self._items
        return [items.popleft() for _ in range(min(most, len(items)))]

    @contextlib.contextmanager
    def watched(self, notify: Callable[[], Any]) -> Iterator[None]:
        """Call `notify` whenever something arrives or ends while the block runs, in whatever thread."""
        self._notify = notify
        try:
            yield
        finally:
            self._notify = lambda: None

    def groups(self, most: int) -> Iterator[list[tuple[int, Any]]]:
        """Yield the inputs with their indexes, at most so many at a time; wait only where there is none."""
        taken = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.is_due)
            group = self.take(most)
            if not group:
                return
            yield list(enumerate(group, taken))
            taken += len(group)

    def __iter__(self) -> Iterator[Any]:
        return (input for group in self.groups(1) for _, input in group)

    def row_at(self, position: int) -> Row | None:
        """Return `None`: whoever gives the inputs knows their rows."""
        return None
