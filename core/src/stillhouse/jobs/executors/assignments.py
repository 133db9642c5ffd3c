"""`Assignments`: which worker generates for which inputs, and what becomes of them when one dies.

The inputs that a dead worker had are generated for again. One of them may have been what it died of: so they
go out in halves, each to a worker that has nothing else. An input that was alone with its worker more than
once when that died is not tried again. So a fatal input fails by itself, and all others are generated for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

__all__ = ["CHUNK", "MAX_DEATHS_ALONE", "Assignments", "Item"]

MAX_DEATHS_ALONE = 2
"""How many workers an input may take with it that had no other input."""

CHUNK = 16
"""How many inputs go to a worker at once, unless it takes more at a time."""

Item = tuple[int, Any]
"""A position among the inputs, and the input."""


class Assignments:
    """The inputs that are generated for, by worker.

    Args:
        capacity: how many inputs a worker may have, those that wait there included.
        chunk: how many go to a worker at once.
    """

    def __init__(self, capacity: int, chunk: int = CHUNK) -> None:
        self._capacity = capacity
        self._chunk = chunk
        self._held: dict[int, dict[int, Any]] = {}
        self._alone: set[int] = set()
        self._suspects: deque[list[Item]] = deque()
        self._deaths: dict[int, int] = {}
        self._lost: set[int] = set()  # with others, to a worker that died

    @property
    def workers(self) -> list[int]:
        """The workers that inputs may go to."""
        return list(self._held)

    @property
    def pending(self) -> int:
        """How many inputs have no result yet."""
        return sum(map(len, self._held.values())) + sum(map(len, self._suspects))

    @property
    def whole(self) -> int:
        """How many inputs all workers together may have."""
        return self._capacity * len(self._held)

    @property
    def room(self) -> int:
        """How many further inputs may go out."""
        return sum(self._capacity - len(self._held[worker]) for worker in self._open())

    def held_by(self, worker: int) -> int:
        """Return how many inputs a worker has that have no result."""
        return len(self._held.get(worker, ()))

    def join(self, worker: int) -> None:
        """Add a worker."""
        self._held[worker] = {}

    def leave(self, worker: int) -> list[tuple[int, Any, int]]:
        """Remove a worker that died.

        Returns:
            The inputs that are not tried again, each with its position and how often it was tried.
        """
        lost = list(self._held.pop(worker, {}).items())
        self._alone.discard(worker)
        if len(lost) == 1:
            position, input = lost[0]
            deaths = self._deaths[position] = self._deaths.get(position, 0) + 1
            if deaths >= MAX_DEATHS_ALONE:
                del self._deaths[position]
                tries = deaths + (position in self._lost)
                self._lost.discard(position)
                return [(position, input, tries)]
            self._suspects.append(lost)
        elif lost:
            self._lost.update(position for position, _ in lost)
            half = (len(lost) + 1) // 2
            self._suspects.extend((lost[:half], lost[half:]))
        return []

    def give(self, items: list[Item]) -> list[tuple[int, list[Item]]]:
        """Assign inputs, as many as there is `room` for, and return who gets which."""
        given: dict[int, list[Item]] = {}
        open_workers = self._open()
        size = max(1, min(self._chunk, -(-len(items) // max(1, len(open_workers)))))
        for start in range(0, len(items), size):
            chunk = items[start : start + size]
            worker = min(open_workers, key=lambda number: len(self._held[number]))
            self._held[worker].update(chunk)
            given.setdefault(worker, []).extend(chunk)
        return list(given.items())

    def give_suspects(self) -> list[tuple[int, list[Item]]]:
        """Assign the inputs of dead workers to those that have nothing to do."""
        given = []
        for worker, held in self._held.items():
            if not self._suspects:
                break
            if not held:
                group = self._suspects.popleft()
                held.update(group)
                self._alone.add(worker)
                given.append((worker, group))
        return given

    def finish(self, worker: int, positions: Iterable[int]) -> dict[int, Any]:
        """Return those inputs of a worker that are at these positions; they are finished."""
        held = self._held.get(worker, {})
        found = {position: held.pop(position) for position in positions if position in held}
        if not held:
            self._alone.discard(worker)
        for position in found if self._deaths or self._lost else ():
            self._deaths.pop(position, None)
            self._lost.discard(position)
        return found

    def _open(self) -> list[int]:
        """Return the workers that may get further inputs; one becomes free where suspects wait for it."""
        workers = [worker for worker in self._held if worker not in self._alone]
        if self._suspects and workers:
            workers.remove(min(workers, key=lambda number: len(self._held[number])))
        return workers
