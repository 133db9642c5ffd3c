"""`Session`: one iteration over inputs, generated for by workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic, perf_counter
from typing import Any, Protocol

from stillhouse._execution.call import Call, Result
from stillhouse._execution.stopping import current_stop
from stillhouse._wording import number_of
from stillhouse.errors import GenerationError, StillhouseError, described
from stillhouse.jobs.executors.assignments import Assignments, Item
from stillhouse.jobs.executors.messages import Begin, Died, End, Ended, Inputs, Ready, Refused, Results, Stop

__all__ = ["Crew", "Session"]

TURN_SECONDS = 0.005
"""How long inputs are pulled before results are looked at."""

TAKE_SECONDS = 0.05
"""How long messages are taken before results are passed on, also from a worker that never falls silent."""

END_SECONDS = 60.0
"""How long workers that have nothing left to do may take to say so."""

SPREAD = 16
"""How far the first unfinished input may lie behind the last one, as a multiple of what workers have."""


class Crew(Protocol):
    """The workers, as a session sees them.

    Attributes:
        capacity: how many inputs a worker may have.
        chunk: how many go to a worker at once.
    """

    capacity: int
    chunk: int

    @property
    def ready(self) -> list[int]:
        """The workers that have loaded the LLM."""

    @property
    def starting(self) -> int:
        """How many workers have not."""

    def send(self, worker: int, message: Any) -> None:
        """Send a worker a message; if it is gone, the message is lost.

        Raises:
            StillhouseError: it does not pickle.
        """

    def next_event(self, *, wait: bool) -> tuple[int, Any] | None:
        """Return what a worker says, or `None` if none says anything."""


class Session:
    """One iteration over inputs.

    Args:
        workers: who generates.
        call: what is asked for.
        begin: the same, for workers.
        ordered: whether results come out in the order of the inputs.
    """

    def __init__(self, workers: Crew, call: Call, begin: Begin, *, ordered: bool) -> None:
        self.call = call
        self._workers = workers
        self._begin = begin
        self._ordered = ordered
        self._stop = current_stop.get()
        self._work = Assignments(workers.capacity, workers.chunk)
        self._open: set[int] = set()
        self._pulled = self._emitted = 0
        self._exhausted = self._cut = self._stopping = False
        self._results: list[Result] = []
        self._waiting: dict[int, Result] = {}
        self._fatal: BaseException | None = None
        self._last_death = ""
        self._ends_at: float | None = None  # set once workers were told that no further inputs follow

    def batches(self, source: Iterator[Item]) -> Iterator[list[Result]]:
        """Yield results, several at a time, until every input has one or the run stops.

        Raises:
            CancelledError: the run stops, and inputs have no result.
            GenerationError: every further input would meet it, or no worker is left.
        """
        for worker in self._workers.ready:
            self._join(worker)
        self._check_left()
        while not self._is_over():
            if self._stop.requested and not self._stopping:
                self._stop_all()
            if self._can_pull:
                self._pull(source)
            if not self._stopping:  # else nothing more is sent, not even what a dead worker left
                self._send(self._work.give_suspects())
            if self._exhausted and not self._work.pending and self._ends_at is None:
                self._ends_at = monotonic() + END_SECONDS
                for worker in self._open:
                    self._workers.send(worker, End())
            results = self._take()
            if results:
                self._emitted += len(results)
                yield results
        if self._fatal is not None:
            raise self._fatal
        if self._cut or self._work.pending:
            raise asyncio.CancelledError

    @property
    def busy(self) -> frozenset[int]:
        """The workers that may still generate, or have not said that they do not."""
        return frozenset(self._open)

    def _is_over(self) -> bool:
        if self._results:
            return False
        if self._work.pending and not (self._stopping or self._fatal):
            return False
        if self._ends_at is not None and not self._work.pending and monotonic() > self._ends_at:
            return True  # every input has its result, whatever holds up a worker
        return self._exhausted and not self._open

    def _join(self, worker: int) -> None:
        self._open.add(worker)
        self._work.join(worker)
        self._workers.send(worker, self._begin)
        if self._ends_at is not None:
            self._workers.send(worker, End())

    def _pull(self, source: Iterator[Item]) -> None:
        """Pull inputs for one turn, or until there is no room, and send them."""
        room = self._room
        items: list[Item] = []
        ends = perf_counter() + TURN_SECONDS
        begin = self.call.begin
        while len(items) < room:
            try:
                index, input = next(source)
            except StopIteration:
                self._exhausted = True
                break
            self._pulled += 1
            result = begin(index, input)
            if result is None:
                items.append((index, input))
            else:
                self._add((index, input, result, 0.0))
            if perf_counter() > ends:
                break
        if items:
            self._send(self._work.give(items))

    def _send(self, given: list[tuple[int, list[Item]]]) -> None:
        for worker, items in given:
            try:
                self._workers.send(worker, Inputs(items))
            except StillhouseError:
                for item in items:
                    self._send_one(worker, item)

    def _send_one(self, worker: int, item: Item) -> None:
        """Send one of several inputs; if it is the one that does not pickle, it fails alone."""
        try:
            self._workers.send(worker, Inputs([item]))
        except StillhouseError as error:
            failure = GenerationError(
                f"the input cannot be sent to a worker: {described(error.__cause__ or error)}",
                kind="invalid_input",
                attempts=0,
                hint="give values that pickle, or leave out --executor",
            )
            self._work.finish(worker, [item[0]])
            self._add((*item, failure, 0.0))

    def _take(self) -> list[Result]:
        """Return the results that are there; wait for something to happen if there is nothing else to do."""
        is_busy, ends = bool(self._results) or self._can_pull, 0.0
        while (event := self._workers.next_event(wait=not is_busy)) is not None:
            self._handle(*event)
            is_busy, now = True, perf_counter()
            ends = ends or now + TAKE_SECONDS
            if now > ends:
                break
        results, self._results = self._results, []
        return results

    @property
    def _room(self) -> int:
        """How many inputs may be pulled now."""
        room = self._work.room
        return (
            min(room, SPREAD * self._work.whole - (self._pulled - self._emitted)) if self._ordered else room
        )

    @property
    def _can_pull(self) -> bool:
        """Whether inputs are wanted: a few at a time would cost a message each."""
        room = 0 if self._exhausted else self._room
        return room > 0 and (room >= self._work.whole // 4 or not self._work.pending)

    def _handle(self, worker: int, message: Any) -> None:
        if isinstance(message, Results):
            inputs = self._work.finish(worker, [position for position, _, _ in message.finished])
            for position, result, seconds in message.finished:
                if position in inputs:  # else its worker was taken for dead
                    self._add((position, inputs.pop(position), result, seconds))
        elif isinstance(message, Ready):
            if not (self._stopping or self._fatal):
                self._join(worker)
        elif isinstance(message, Ended):
            self._open.discard(worker)
            left = self._work.held_by(worker)
            if message.error is not None:
                self._end_with(message.error)
            elif left and not self._stopping:
                self._end_with(
                    GenerationError(
                        f"a worker ended without a result for {number_of(left, 'row')} that it was given",
                        kind="server",
                        stops_run=True,
                        hint="run the same command again to resume; if it happens again, report it",
                    )
                )
        elif isinstance(message, Refused):
            self._last_death = described(message.error)
        elif isinstance(message, Died):
            self._bury(worker, message.reason)

    def _bury(self, worker: int, reason: str) -> None:
        """Give the inputs of a dead worker to others."""
        self._open.discard(worker)
        self._last_death = self._last_death or reason
        for position, input, tries in self._work.leave(worker):
            error = GenerationError(
                f"the worker died {tries} times while generating for this row: {reason}",
                kind="server",
                attempts=tries,
                hint="retry it with --retry server, with more memory or fewer --workers",
            )
            self._add((position, input, error, 0.0))
        self._check_left()

    def _check_left(self) -> None:
        """End the iteration if nobody will generate for it."""
        if not self._workers.ready and not self._workers.starting and not self._stopping:
            self._end_with(
                GenerationError(
                    f"no worker is left: {self._last_death or 'they died earlier'}",
                    kind="server",
                    stops_run=True,
                    hint="run the same command again to resume; if memory ran out, give fewer --workers",
                )
            )

    def _add(self, result: Result) -> None:
        if not self._ordered:
            self._results.append(result)
            return
        self._waiting[result[0]] = result
        first = self._emitted + len(self._results)
        while first in self._waiting:
            self._results.append(self._waiting.pop(first))
            first += 1

    def _end_with(self, error: BaseException) -> None:
        if self._fatal is None:
            self._fatal = error
        self._stop_all()

    def _stop_all(self) -> None:
        """Let what is in flight end, and send nothing more."""
        if not self._stopping:
            self._stopping = True
            self._cut = not self._exhausted
            self._exhausted = True
            for worker in self._open:
                self._workers.send(worker, Stop())
