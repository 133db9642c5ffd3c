"""`Worker`: what a worker does, wherever it runs and however messages reach it."""

from __future__ import annotations

import contextlib
import logging
import pickle
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

from stillhouse._execution.arriving import Arriving
from stillhouse._execution.bugs import naming_bugs
from stillhouse._execution.exits import is_from_signal
from stillhouse._execution.leases import Leases, Terms, current_leases
from stillhouse._execution.share import set_share
from stillhouse._execution.stopping import Stop as StopRequest
from stillhouse._execution.stopping import stopping_with
from stillhouse.errors import (
    ConfigurationError,
    ErrorKind,
    GenerationError,
    StillhouseError,
    described,
    message_of,
)
from stillhouse.jobs.executors.messages import (
    Begin,
    Check,
    Checked,
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
from stillhouse.jobs.runs.loading import collecting_less
from stillhouse.llm import LLM
from stillhouse.registry.hooks import Hooks

__all__ = ["Worker"]

_logger = logging.getLogger("stillhouse")

Send = Callable[[Any], None]
"""Sends a message; it raises a `StillhouseError` for one that does not pickle."""


class Worker:
    """A worker: it loads a copy of the LLM, and generates for the inputs that it receives.

    `take` takes messages in one thread, and `run` works in another one. A worker needs its own process: it
    sets the share of the process in the concurrency, and passes on the records of its loggers.

    Args:
        send: sends a message to the main process; it is called in several threads.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._tasks: SimpleQueue[_Session | Check | None] = SimpleQueue()
        self._session: _Session | None = None
        self._leases = Leases(self._send_of_limits)

    @property
    def is_generating(self) -> bool:
        """Whether there may be inputs in flight."""
        return self._session is not None

    def take(self, message: Any) -> None:
        """Take a message of the main process."""
        session = self._session
        if isinstance(message, Inputs):
            if session is not None:
                session.put(message.items)
        elif isinstance(message, Terms):
            self._leases.take(message)
        elif isinstance(message, Begin):
            self._session = session = _Session(message)
            self._tasks.put(session)
        elif isinstance(message, (End, Stop)):
            if session is not None:
                if isinstance(message, Stop):
                    session.stop.request()
                session.inputs.end()
        elif isinstance(message, Check):
            self._tasks.put(message)
        elif isinstance(message, Quit):
            self._tasks.put(None)

    def fail(self, error: Exception) -> None:
        """Report that a message cannot be read, so that no further one can be taken."""
        self._send(
            Ended(
                GenerationError(
                    f"a worker cannot read what it is sent: {described(error)}",
                    stops_run=True,
                    hint="pass values whose classes are in modules that the workers can import",
                )
            )
        )

    def run(self, setup: Setup) -> None:
        """Work until the last message is taken."""
        with _passing_on(setup.levels, self._send), contextlib.ExitStack() as resources:
            try:
                set_share(setup.share)
                llm = _read(setup.llm)
                resources.enter_context(_leasing(self._leases))
                with naming_bugs(llm):
                    llm.load()
            except BaseException as error:
                self._send(Refused(_sendable(error)))
                return
            resources.callback(_unload, llm)
            resources.enter_context(collecting_less())
            self._send(Ready())
            while (task := self._tasks.get()) is not None:
                if isinstance(task, Check):
                    self._send(Checked(_refusal(llm, task.input)))
                else:
                    self._generate(llm, task)

    def _generate(self, llm: LLM, session: _Session) -> None:
        error: BaseException | None = None
        try:
            with stopping_with(session.stop):
                begin = session.begin
                groups = llm.iter_finished(
                    session.inputs, begin.num_generations, on_error="yield", ordered=False, **begin.arguments
                )
                with contextlib.closing(groups):
                    for group in groups:
                        self._send_results([(session.pop(index), *rest) for index, *rest in group])
        except (KeyboardInterrupt, MemoryError):  # it is to end now
            raise
        except BaseException as raised:
            error = _sendable(raised)
        self._session = None
        self._send(Ended(error))

    def _send_of_limits(self, message: Any) -> None:
        """Send a message from the loop of an LLM, which ends the run no sooner than its own thread does."""
        with contextlib.suppress(KeyboardInterrupt):  # nobody is there any more
            self._send(message)

    def _send_results(self, finished: list[Any]) -> None:
        try:
            self._send(Results(finished))
        except StillhouseError:
            for position, result, seconds in finished:
                self._send_one(position, result, seconds)

    def _send_one(self, position: int, result: Any, seconds: float) -> None:
        try:
            self._send(Results([(position, result, seconds)]))
        except StillhouseError as error:
            failure = _sendable(result) if isinstance(result, Exception) else error
            self._send(Results([(position, GenerationError.wrap(failure), seconds)]))


class _Session:
    """The inputs between a `Begin` and an `End`.

    Args:
        begin: what to do with them.
    """

    def __init__(self, begin: Begin) -> None:
        self.begin = begin
        self.stop = StopRequest()
        self.inputs = Arriving(has_arguments=begin.has_arguments)
        self._positions: dict[int, int] = {}
        self._count = 0

    def put(self, items: list[tuple[int, Any]]) -> None:
        """Take inputs, each with its position in the run."""
        for index, (position, _) in enumerate(items, self._count):
            self._positions[index] = position
        self._count += len(items)
        self.inputs.put([input for _, input in items])

    def pop(self, index: int) -> int:
        """Return the position of the input with an index among those of this session, which is finished."""
        return self._positions.pop(index)


class _WithoutHooks:
    """A registry as an LLM sees it, without hooks: those of a run are called in the process of the run."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self._hooks = Hooks()

    def hooks(self) -> Hooks:
        return self._hooks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)


def _read(content: bytes) -> LLM:
    try:
        llm: LLM = pickle.loads(content)  # noqa: S301 - from the process of the run
    except Exception as error:
        raise ConfigurationError(
            f"a worker cannot read the LLM: {described(error)}",
            hint="define it in a module that the workers can import, not in a script or a notebook",
        ) from error
    backends: Any = _WithoutHooks(llm.registry)
    llm.use_registry(backends)
    return llm


def _unload(llm: LLM) -> None:
    """Unload an LLM; all results have been sent, so that a failure is worth a line and no more."""
    try:
        with naming_bugs(llm):
            llm.unload()
    except Exception as error:
        _logger.warning("a worker could not unload the LLM: %s", message_of(error))


def _refusal(llm: LLM, input: Any) -> Exception | None:
    try:
        llm.check_input(input)
    except Exception as error:
        return _sendable(error)
    return None


def _sendable(error: BaseException) -> StillhouseError:
    """Return an error that another process can read, with what this one says."""
    if isinstance(error, StillhouseError):
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
        except BaseException as problem:
            if is_from_signal(problem):
                raise
        else:
            return error
    kind: ErrorKind = getattr(error, "kind", "unknown")
    hint = getattr(error, "hint", "")
    stops_run = getattr(error, "stops_run", not isinstance(error, StillhouseError))
    return GenerationError(message_of(error), kind=kind, hint=hint, stops_run=stops_run)


@contextlib.contextmanager
def _leasing(leases: Leases) -> Iterator[None]:
    """Let LLMs that are loaded in this block have their limits in the process of the run."""
    token = current_leases.set(leases)
    try:
        yield
    finally:
        current_leases.reset(token)


@contextlib.contextmanager
def _passing_on(levels: Any, send: Send) -> Iterator[None]:
    """Pass on the records of loggers while the block runs."""
    handler = _Passing(send)
    with contextlib.ExitStack() as stack:
        for name, level in levels.items():
            logger = logging.getLogger(name)
            logger.setLevel(level)
            logger.addHandler(handler)
            logger.propagate = False
            stack.callback(logger.removeHandler, handler)
        yield


class _Passing(logging.Handler):
    def __init__(self, send: Send) -> None:
        super().__init__()
        self._pass = send

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text, place = record.getMessage(), getattr(record, "place", None)
            self._pass(Log(record.name, record.levelno, text, None if place is None else str(place)))
        except Exception:  # as every handler does: no call of a logger fails
            self.handleError(record)
