"""`Workers`: an executor of several workers, each with a copy of the LLM.

What stays in the process of the run: inputs, hooks, the order of results. A worker is reached by a
`WorkerHandle`; what it says arrives in a queue, from whatever thread.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, Literal, Self

from stillhouse._execution.call import Call, Finished, finish_group
from stillhouse._execution.loop_thread import WAIT_SECONDS
from stillhouse._execution.own_arguments import have_arguments
from stillhouse._execution.share import Share
from stillhouse._execution.stopping import current_stop
from stillhouse.errors import ConfigurationError, GenerationError, described
from stillhouse.jobs.executors.assignments import Assignments
from stillhouse.jobs.executors.messages import (
    Begin,
    Check,
    Checked,
    Died,
    End,
    Ended,
    Inputs,
    Log,
    Quit,
    Ready,
    Refused,
    Results,
    Setup,
    Stop,
)
from stillhouse.llm import LLM

__all__ = ["Launch", "WorkerHandle", "Workers"]

TURN_SECONDS = 0.005
"""How long inputs are pulled before results are looked at."""

SPREAD = 16
"""How far the first unfinished input may lie behind the last one, as a multiple of what workers have."""

AHEAD = 32
"""How many inputs wait at a worker, besides those that it generates for: until more arrive, it has these."""

MAX_FAILED_STARTS = 3
"""How often in a row a worker is started again that dies before it can generate."""

_LOGGERS = ("stillhouse", "stillhouse.bugs", "stillhouse.messages")

_NOTHING = (-1, None)
"""What arrives when the run is to stop: it wakes who waits."""


class WorkerHandle(ABC):
    """A worker, as the process of the run sees it.

    Attributes:
        name: how messages name it, such as `process 4711`.
    """

    name: str

    @abstractmethod
    def send(self, message: Any) -> None:
        """Send it a message. It does not wait; if the worker is dead, the message is lost."""

    @abstractmethod
    def close(self, *, at_once: bool) -> None:
        """End it, and wait until it is gone. It was sent `Quit`.

        Args:
            at_once: whether nothing that it does is wanted any more.
        """


Deliver = Callable[[Any], None]
"""Takes a message of a worker, in any thread; the last one is `Died`."""

Launch = Callable[[Setup, Deliver], WorkerHandle]
"""Starts a worker, without waiting for it."""


class Workers:
    """Generates by several workers. A context manager: they are started on entry, and ended on exit.

    Args:
        llm: the LLM, which is not loaded. Each worker gets a copy, and an equal share of its limits.
        count: how many workers.
        launch: starts one.

    Raises:
        ConfigurationError: the LLM is loaded, or does not pickle.
    """

    def __init__(self, llm: LLM, count: int, launch: Launch) -> None:
        self._llm = llm
        self._content = _pickled(llm)
        window = getattr(llm, "max_concurrency", None)
        self._count = min(count, window) if window else count
        each = -(-window // self._count) if window else llm.preferred_batch_size
        self._capacity = 2 * each + (AHEAD if window else 0)
        self._chunk = max(16, llm.preferred_batch_size if window is None else 0)
        self._launch = launch
        self._events: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self._handles: dict[int, WorkerHandle] = {}
        self._shares: dict[int, int] = {}
        self._ready: set[int] = set()
        self._used: set[int] = set()
        self._failed_starts = 0
        self._started = 0
        self._is_generating = False

    def __enter__(self) -> Self:
        try:
            for number in range(self._count):
                self._start(number)
            while len(self._ready) < self._count:
                _, message = self.next_event(wait=True, restart=False) or _NOTHING
                if isinstance(message, Refused):
                    raise message.error
                if isinstance(message, Died):
                    raise GenerationError(
                        f"a worker died while it loaded the LLM: {message.reason}",
                        kind="server",
                        stops_run=True,
                        hint="if memory ran out, give fewer --workers",
                    )
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, and wait until they are gone."""
        handles, self._handles = self._handles, {}
        for handle in handles.values():
            handle.send(Quit())
        for worker, handle in handles.items():
            handle.close(at_once=self._is_generating or worker not in self._ready)

    def check_input(self, input: Any) -> None:
        """Let a worker check an input; see `LLM.check_input`."""
        worker = next(iter(self._ready), -1)
        self.send(worker, Check(input))
        while worker in self._ready:
            sender, message = self.next_event(wait=True) or _NOTHING
            if sender == worker and isinstance(message, Checked):
                if message.error is not None:
                    raise message.error
                return
        raise GenerationError("a worker died while it checked an input", kind="server", stops_run=True)

    def iter_finished(
        self,
        inputs: Iterable[Any],
        num_generations: int = 1,
        *,
        on_error: Literal["raise", "yield"] = "raise",
        ordered: bool = True,
        **kwargs: Any,
    ) -> Generator[list[Finished], None, None]:
        """Generate for inputs; see `LLM.iter_finished`."""
        call = self._llm._begin_elsewhere(inputs, num_generations, kwargs)
        begin = Begin(num_generations, kwargs, have_arguments(inputs))
        return self._iter_finished(_Session(self, call, begin, ordered=ordered), inputs, on_error)

    def _iter_finished(
        self, session: _Session, inputs: Iterable[Any], on_error: Literal["raise", "yield"]
    ) -> Generator[list[Finished], None, None]:
        self._is_generating = True
        try:
            with current_stop.get().watched(lambda: self._events.put(_NOTHING)):
                for batch in session.batches(enumerate(inputs)):
                    finished, fatal = finish_group(session.call, batch, on_error)
                    if finished:
                        yield finished
                    if fatal is not None:
                        raise fatal
        finally:
            self._is_generating = session.is_open

    # What the session needs

    @property
    def capacity(self) -> int:
        """How many inputs a worker may have."""
        return self._capacity

    @property
    def chunk(self) -> int:
        """How many go to a worker at once."""
        return self._chunk

    @property
    def ready(self) -> list[int]:
        """The workers that have loaded the LLM."""
        return sorted(self._ready)

    @property
    def starting(self) -> int:
        """How many workers have not."""
        return len(self._handles) - len(self._ready)

    def send(self, worker: int, message: Any) -> None:
        """Send a worker a message."""
        handle = self._handles.get(worker)
        if handle is not None:
            handle.send(message)
        if isinstance(message, Inputs):
            self._used.add(worker)

    def next_event(self, *, wait: bool, restart: bool = True) -> tuple[int, Any] | None:
        """Return what a worker says, or `None` if none says anything.

        Args:
            wait: whether to wait for a while.
            restart: whether a worker that died is replaced.
        """
        try:
            worker, message = self._events.get(block=wait, timeout=WAIT_SECONDS)
        except Empty:
            return None
        self._attend(worker, message)
        if isinstance(message, Died):
            number = self._shares.pop(worker)
            if restart and self._failed_starts < MAX_FAILED_STARTS and not current_stop.get().requested:
                self._start(number)
        return worker, message

    def _start(self, number: int) -> None:
        """Start the worker with one of the shares."""
        worker = self._started
        self._started += 1
        self._shares[worker] = number
        levels = {name: logging.getLogger(name).getEffectiveLevel() for name in _LOGGERS}
        setup = Setup(self._content, Share(number, self._count), levels)
        self._handles[worker] = self._launch(setup, lambda message: self._events.put((worker, message)))

    def _attend(self, worker: int, message: Any) -> None:
        """Note what every message means, whoever waits for it."""
        if isinstance(message, Log):
            extra = {} if message.place is None else {"place": message.place}
            logging.getLogger(message.name).log(message.level, "%s", message.text, extra=extra)
        elif isinstance(message, Ready):
            self._ready.add(worker)
        elif isinstance(message, Results):
            self._failed_starts = 0
        elif isinstance(message, Died):
            if worker not in self._used:
                self._failed_starts += 1
            self._used.discard(worker)
            self._ready.discard(worker)
            handle = self._handles.pop(worker, None)
            if handle is not None:
                handle.close(at_once=True)


class _Session:
    """One iteration over inputs.

    Args:
        workers: who generates.
        call: what is asked for.
        begin: the same, for workers.
        ordered: whether results come out in the order of the inputs.
    """

    def __init__(self, workers: Workers, call: Call, begin: Begin, *, ordered: bool) -> None:
        self.call = call
        self._workers = workers
        self._begin = begin
        self._ordered = ordered
        self._stop = current_stop.get()
        self._work = Assignments(workers.capacity, workers.chunk)
        self._open: set[int] = set()
        self._pulled = self._emitted = 0
        self._exhausted = self._cut = self._stopping = self._ending = False
        self._results: list[tuple[int, Any, Any, float]] = []
        self._waiting: dict[int, tuple[int, Any, Any, float]] = {}
        self._fatal: BaseException | None = None
        self._last_death = ""

    def batches(self, source: Iterator[tuple[int, Any]]) -> Iterator[list[tuple[int, Any, Any, float]]]:
        """Yield results, several at a time, until every input has one or the run stops.

        Raises:
            CancelledError: the run stops, and inputs have no result.
            GenerationError: every further input would meet it, or no worker is left.
        """
        for worker in self._workers.ready:
            self._join(worker)
        while not self._is_over():
            if self._stop.requested and not self._stopping:
                self._stop_all()
            if not self._exhausted:
                self._pull(source)
            self._send(self._work.give_suspects())
            if self._exhausted and not self._work.pending and not self._ending:
                self._ending = True
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
    def is_open(self) -> bool:
        """Whether a worker may still generate."""
        return bool(self._open)

    def _is_over(self) -> bool:
        if self._results:
            return False
        if self._work.pending and not (self._stopping or self._fatal):
            return False
        return self._exhausted and not self._open

    def _join(self, worker: int) -> None:
        self._open.add(worker)
        self._work.join(worker)
        self._workers.send(worker, self._begin)
        if self._ending:
            self._workers.send(worker, End())

    def _pull(self, source: Iterator[tuple[int, Any]]) -> None:
        """Pull inputs for one turn, or until there is no room, and send them."""
        room = self._work.room
        if self._ordered:
            room = min(room, SPREAD * self._work.whole - (self._pulled - self._emitted))
        if room < max(1, self._work.whole // 8) and self._work.pending:
            return
        items: list[tuple[int, Any]] = []
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

    def _send(self, given: list[tuple[int, list[tuple[int, Any]]]]) -> None:
        for worker, items in given:
            self._workers.send(worker, Inputs(items))

    def _take(self) -> list[tuple[int, Any, Any, float]]:
        """Return the results that are there; wait for something to happen if there is nothing else to do."""
        is_busy = bool(self._results) or self._can_pull()
        while (event := self._workers.next_event(wait=not is_busy)) is not None:
            self._handle(*event)
            is_busy = True
        results, self._results = self._results, []
        return results

    def _can_pull(self) -> bool:
        if self._exhausted:
            return False
        room = self._work.room
        if self._ordered:
            room = min(room, SPREAD * self._work.whole - (self._pulled - self._emitted))
        return room > 0 and (room >= self._work.whole // 8 or not self._work.pending)

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
            if message.error is not None:
                self._end_with(message.error)
        elif isinstance(message, Refused):
            self._last_death = described(message.error)
        elif isinstance(message, Died):
            self._bury(worker, message.reason)

    def _bury(self, worker: int, reason: str) -> None:
        """Give the inputs of a dead worker to others."""
        self._open.discard(worker)
        self._last_death = self._last_death or reason
        for position, input, deaths in self._work.leave(worker):
            error = GenerationError(
                f"the worker died {deaths + 1} times while it generated for this row: {reason}",
                kind="server",
                attempts=deaths + 1,
                hint="retry it with --retry server, with more memory or fewer --workers",
            )
            self._add((position, input, error, 0.0))
        if not self._workers.ready and not self._workers.starting and not self._stopping:
            self._end_with(
                GenerationError(
                    f"no worker is left: {self._last_death}",
                    kind="server",
                    stops_run=True,
                    hint="run the same command again to resume; if memory ran out, give fewer --workers",
                )
            )

    def _add(self, result: tuple[int, Any, Any, float]) -> None:
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


def _pickled(llm: LLM) -> bytes:
    """Return an LLM as bytes that a worker can read.

    Raises:
        ConfigurationError: it cannot be pickled, or not read where its class is not defined.
    """
    cls = type(llm)
    if llm.is_loaded:
        raise ConfigurationError(
            f"{cls.__name__} is loaded, and each worker loads a copy of its own",
            hint="give the LLM before it is loaded, outside a with block",
        )
    if cls.__module__ == "__main__":
        raise ConfigurationError(
            f"{cls.__name__} is defined in the script itself, which workers do not run",
            hint="put it into a module that the script imports",
        )
    try:
        return pickle.dumps(llm, protocol=5)
    except Exception as error:
        field = next((name for name in cls.model_fields if not _pickles(getattr(llm, name))), None)
        what = cls.__name__ if field is None else f"the field {field} of {cls.__name__}"
        raise ConfigurationError(
            f"{what} does not pickle, so that it cannot be sent to workers: {described(error)}",
            hint="create it in load(), or leave out --executor"
            if field is None
            else "give a value that pickles, such as a function of a module, or leave out --executor",
        ) from error


def _pickles(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True
