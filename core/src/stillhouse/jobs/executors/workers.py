"""`Workers`: an executor of several workers, each with a copy of the LLM.

What stays in the process of the run: inputs, hooks, the order of results. A worker is reached by a
`WorkerHandle`; what it says arrives in a queue, from whatever thread.

Over 300 lines: it is one class, whose methods share who is alive, ready and busy.
"""

from __future__ import annotations

import contextlib
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Literal, Self

from stillhouse._execution.call import Finished, finish_group
from stillhouse._execution.leases import Closed, Opened, Used
from stillhouse._execution.loop_thread import WAIT_SECONDS
from stillhouse._execution.own_arguments import have_arguments
from stillhouse._execution.share import Share
from stillhouse._execution.stopping import current_stop
from stillhouse.errors import ConfigurationError, GenerationError, message_of
from stillhouse.jobs.executors.assignments import CHUNK
from stillhouse.jobs.executors.messages import (
    Begin,
    Check,
    Checked,
    Died,
    Ended,
    Inputs,
    Log,
    Quit,
    Ready,
    Refused,
    Results,
    Setup,
)
from stillhouse.jobs.executors.pickling import pickled
from stillhouse.jobs.executors.run_limits import RunLimits
from stillhouse.jobs.executors.session import Session
from stillhouse.llm import LLM

__all__ = ["Launch", "WorkerHandle", "Workers"]

AHEAD = 32
"""How many inputs wait at a worker, besides those that it generates for: until more arrive, it has these."""

MAX_WORKERS = 1_000
"""How many workers a run may have: more are a typing error, which must not start a million processes."""

MAX_FAILED_STARTS = 3
"""How often in a row a worker is started that dies before it has generated anything."""

_logger = logging.getLogger("stillhouse")

_LOGGERS = ("stillhouse", "stillhouse.bugs", "stillhouse.messages")

_NOTHING = (-1, None)
"""What arrives when the run is to stop: it wakes who waits."""


class WorkerHandle(ABC):
    """A worker, as the main process sees it."""

    @abstractmethod
    def send(self, message: Any) -> None:
        """Send a message to the worker. It is called in any thread, and must not wait.

        Messages must arrive in their order. If the worker is dead, the message is lost.
        """

    @abstractmethod
    def close(self, *, at_once: bool) -> None:
        """End the worker, and wait until it is gone.

        It was sent its last message, after which it unloads the LLM and ends.

        Args:
            at_once: whether to cancel what it does.
        """


Deliver = Callable[[Any], None]
"""Takes a message of a worker, in any thread; the last one is `Died`."""

Launch = Callable[[Setup, Deliver], WorkerHandle]
"""Starts a worker, without waiting for it."""


class Workers:
    """Generates with several workers. A context manager: it starts them on entry, and ends them on exit.

    Args:
        llm: the LLM, which is not loaded. Each worker gets a copy. Its limits apply to all workers together.
        count: the number of workers.
        launch: starts a worker.
        enough: the number of workers that must have loaded the LLM before the first row; `None` for all. The
            others join later, such as on a cluster that grows.

    Attributes:
        capacity: how many inputs a worker may have.
        chunk: how many go to a worker at once.

    Raises:
        ConfigurationError: the LLM is loaded, or does not pickle, or there are too many workers.
    """

    def __init__(self, llm: LLM, count: int, launch: Launch, *, enough: int | None = None) -> None:
        if count > MAX_WORKERS:
            raise ConfigurationError(
                f"{count:,} workers are more than a run can use", hint=f"give at most {MAX_WORKERS:,}"
            )
        self._llm = llm
        self._content = pickled(llm)
        window = getattr(llm, "max_concurrency", None)
        self._count = min(count, window) if window else count
        self._enough = self._count if enough is None else min(enough, self._count)
        each = -(-window // self._count) if window else llm.preferred_batch_size
        self.capacity = 2 * each + (AHEAD if window else 0)
        self.chunk = CHUNK if window else max(CHUNK, llm.preferred_batch_size)
        self._launch = launch
        self._events: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self._handles: dict[int, WorkerHandle] = {}
        self._shares: dict[int, int] = {}
        self._ready: set[int] = set()
        self._used: set[int] = set()
        self._failed_starts: Counter[int] = Counter()
        self._refusals: set[str] = set()
        self._started = 0
        self._is_generating = False
        self._busy: frozenset[int] = frozenset()
        self._limits = RunLimits()

    def __enter__(self) -> Self:
        self._limits.start()
        try:
            for number in range(self._count):
                self._start(number)
            while len(self._ready) < self._enough:
                _, message = self.next_event(wait=True, restart=False) or _NOTHING
                if isinstance(message, (Refused, Ended)) and message.error is not None:
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
            at_once = self._is_generating or worker in self._busy or worker not in self._ready
            handle.close(at_once=at_once)
        self._limits.close()
        with contextlib.suppress(Empty):  # what they logged as they ended
            while True:
                _, message = self._events.get_nowait()
                if isinstance(message, Log):
                    _pass_on(message)

    def check_input(self, input: Any) -> None:
        """Let a worker check an input; see `LLM.check_input`."""
        self._replace_busy()
        worker = next(iter(self._ready), -1)
        self.send(worker, Check(input))
        while worker in self._ready:
            sender, message = self.next_event(wait=True) or _NOTHING
            if sender == worker and isinstance(message, (Checked, Ended)) and message.error is not None:
                raise message.error
            if sender == worker and isinstance(message, Checked):
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
        return self._iter_finished(Session(self, call, begin, ordered=ordered), inputs, on_error)

    def _iter_finished(
        self, session: Session, inputs: Iterable[Any], on_error: Literal["raise", "yield"]
    ) -> Generator[list[Finished], None, None]:
        self._replace_busy()
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
            self._is_generating, self._busy = False, session.busy

    def _replace_busy(self) -> None:
        """Replace the workers that an iteration left in the middle: they work on inputs that nobody wants."""
        busy, self._busy = self._busy & self._handles.keys(), frozenset()
        handles = [self._handles.pop(worker) for worker in busy]
        numbers = [self._shares.pop(worker) for worker in busy]
        self._ready -= busy
        self._used -= busy
        for handle in handles:
            handle.send(Quit())
        for handle in handles:
            handle.close(at_once=True)
        for number in numbers:
            self._restart(number)

    # What a session needs

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
        number = self._shares.get(worker)
        if number is None:  # it was replaced, or is taken for dead
            if isinstance(message, Log):
                _pass_on(message)
            return _NOTHING
        self._attend(worker, number, message)
        if isinstance(message, Died):
            del self._shares[worker]
            failed = self._failed_starts[number] >= MAX_FAILED_STARTS
            if restart and not failed and not current_stop.get().requested:
                self._restart(number)
        return worker, message

    def _restart(self, number: int) -> None:
        """Replace a worker, as far as the system has room for one: the others go on in any case."""
        try:
            self._start(number)
        except GenerationError as error:
            self._warn(error)

    def _start(self, number: int) -> None:
        """Start the worker with one of the shares."""
        worker = self._started
        self._started += 1
        self._shares[worker] = number
        levels = {name: logging.getLogger(name).getEffectiveLevel() for name in _LOGGERS}
        setup = Setup(self._content, Share(number, self._count), levels)
        try:
            handle = self._handles[worker] = self._launch(setup, partial(self._deliver, worker))
        except OSError as error:
            del self._shares[worker]
            raise GenerationError(
                f"a worker cannot be started: {error.strerror or error}",
                kind="server",
                stops_run=True,
                hint="give fewer --workers",
            ) from error
        self._limits.join(worker, handle.send)

    def _deliver(self, worker: int, message: Any) -> None:
        """Take what a worker says, in whatever thread: what concerns limits does not wait for anything."""
        is_of_limits = isinstance(message, (Used, Opened, Closed))
        if is_of_limits or isinstance(message, Died):
            self._limits.take(worker, message)
        if not is_of_limits:
            self._events.put((worker, message))

    def _attend(self, worker: int, number: int, message: Any) -> None:
        """Note what every message means, whoever waits for it."""
        if isinstance(message, Log):
            _pass_on(message)
        elif isinstance(message, Ready):
            self._ready.add(worker)
        elif isinstance(message, Refused):
            self._warn(message.error)
        elif isinstance(message, Results):
            self._failed_starts.pop(number, None)
        elif isinstance(message, Died):
            if worker not in self._used:
                self._failed_starts[number] += 1
            self._used.discard(worker)
            self._ready.discard(worker)
            handle = self._handles.pop(worker, None)
            if handle is not None:
                handle.close(at_once=True)

    def _warn(self, error: BaseException) -> None:
        """Log why a worker cannot start, once for each reason, if the run continues without it."""
        refusal = message_of(error)
        if self._ready and refusal not in self._refusals:
            self._refusals.add(refusal)
            _logger.warning("a worker cannot start; the run continues with the others: %s", refusal)


def _pass_on(message: Log) -> None:
    """Log here what a worker logged."""
    extra = {} if message.place is None else {"place": message.place}
    logging.getLogger(message.name).log(message.level, "%s", message.text, extra=extra)
