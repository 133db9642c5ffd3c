"""`PluginExecutor`: an executor of a plugin, held to the protocol, for a run stores whatever it yields.

Over 300 lines: what a plugin is given and what it yields are checked against each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from stillhouse._execution.call import Finished
from stillhouse._execution.exits import ended, is_from_signal
from stillhouse._execution.stopping import current_stop
from stillhouse.errors import ERROR_KINDS, ConfigurationError, GenerationError, StillhouseError
from stillhouse.outputs import check_output
from stillhouse.protocols import Row, RowInputs
from stillhouse.registry.problems import describe

__all__ = ["PluginExecutor", "most_ahead"]

T = TypeVar("T")

MAX_AHEAD = 100_000
"""How many inputs an executor may have without a result, unless its LLM has many in flight."""

AHEAD = 600
"""How many it may have for each that may be in flight. `Workers` that keep the order have fewer."""

MAX_EMPTY_GROUPS = 1000
"""How many groups without a result may follow the last result."""

_logger = logging.getLogger("stillhouse.hooks")

_END = object()


class PluginExecutor:
    """An executor of a plugin. A context manager.

    What the plugin raises is an error that names it, unless it is an error for the user. A result that the
    protocol does not allow ends the iteration, after those that it does.

    Args:
        plugin: the name of the plugin.
        made: what the hook returned.
        most_ahead: how many inputs may have no result.
    """

    def __init__(self, plugin: str, made: Any, most_ahead: int = MAX_AHEAD) -> None:
        self._plugin = plugin
        self._made = made
        self._executor: Any = None
        self._most_ahead = most_ahead

    def __enter__(self) -> Self:
        self._executor = executor = self._call(self._made.__enter__)
        lacking = [
            name for name in ("check_input", "iter_finished") if not callable(getattr(executor, name, None))
        ]
        if lacking:
            problem = self._broken(f"is a {type(executor).__name__}, which has no {', '.join(lacking)}")
            self.__exit__(type(problem), problem, None)
            raise problem
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Every row is stored by now, so that this changes nothing about the run, nor what ended it.
        self._warn_if(self._made.__exit__, kind, error, trace)

    def check_input(self, input: Any) -> None:
        """Refuse an input that the LLM cannot take."""
        try:
            self._executor.check_input(input)
        except BaseException as error:
            raise ended(error, f"check_input of the plugin {self._plugin}") from error.__cause__

    def iter_finished(
        self,
        inputs: Iterable[Any],
        num_generations: int = 1,
        *,
        on_error: Literal["raise", "yield"] = "raise",
        ordered: bool = True,
        **kwargs: Any,
    ) -> Generator[list[Finished], None, None]:
        """Generate for inputs; see `Executor.iter_finished`."""
        given = _Given(inputs, self._most_ahead, self._broken)
        check = _Check(self._plugin, given, num_generations, on_error, ordered=ordered)
        groups: Any = None
        try:
            groups = self._ask(
                given, self._executor.iter_finished, given, num_generations,
                on_error=on_error, ordered=ordered, **kwargs,
            )  # fmt: skip
            groups = self._ask(given, iter, groups)
            empty = 0
            while (group := self._ask(given, next, groups, _END)) is not _END:
                finished, wrong, fatal = check.results(group)
                if finished:
                    with given.lock:
                        yield finished
                if wrong:
                    raise self._broken(wrong)
                if fatal is not None:
                    raise fatal
                empty = 0 if finished or not given.is_done else empty + 1
                if empty > MAX_EMPTY_GROUPS:
                    return
            if not (given.is_done or current_stop.get().requested):
                raise self._broken(given.what_is_missing)
        finally:
            given.close()
            close = getattr(groups, "close", None)
            if callable(close):
                self._warn_if(close)

    def _ask(self, given: _Given, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call the plugin, which may pull inputs; what these raise comes out, whatever it makes of that."""
        try:
            answer = self._call(function, *args, **kwargs)
        except BaseException as error:
            if given.problem is not None and not is_from_signal(error):
                raise given.problem from None
            raise
        if given.problem is not None:
            raise given.problem
        return answer

    def _call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        try:
            return function(*args, **kwargs)
        except StillhouseError:  # the plugin's own, for the user
            raise
        except BaseException as error:
            has_stopped = isinstance(error, asyncio.CancelledError) and current_stop.get().requested
            if has_stopped or is_from_signal(error):
                raise
            raise self._broken(f"failed: {describe(error)}") from error

    def _warn_if(self, function: Callable[..., Any], *args: Any) -> None:
        """Call the plugin where nothing depends on it any more, and warn if that fails."""
        try:
            function(*args)
        except BaseException as error:
            if is_from_signal(error):
                raise
            if any(error is given for given in args):  # as a context manager does with what it lets pass
                return
            said = error.message if isinstance(error, StillhouseError) else describe(error)
            _logger.warning(
                "the executor of the plugin %s failed as the run left it: %s; the run is not affected; check "
                "that its workers have ended",
                self._plugin,
                said,
            )

    def _broken(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"the executor of the plugin {self._plugin} {what}",
            hint="report it to the plugin's authors; the same command without --executor resumes the run",
        )


def most_ahead(llm: Any, workers: int | None) -> int:
    """Return how many inputs the executor of an LLM may have without a result."""
    in_flight: int = getattr(llm, "max_concurrency", None) or llm.preferred_batch_size * (workers or 16)
    return max(AHEAD * in_flight, MAX_AHEAD)


class _Given(RowInputs):
    """The inputs of one iteration, as the plugin gets them. It may pull them in any thread.

    Args:
        inputs: the inputs.
        most: how many may have no result.
        broken: returns the error that says what the plugin does wrong.

    Attributes:
        lock: held while an input is pulled; the run does not expect that while it stores results.
        count: how many were pulled.
        pending: the positions of those without a result.
        problem: what pulling raised.
    """

    def __init__(self, inputs: Iterable[Any], most: int, broken: Callable[[str], Exception]) -> None:
        self.has_arguments = isinstance(inputs, RowInputs) and inputs.has_arguments
        self._inputs = inputs
        self._most = most
        self._broken = broken
        self.lock = threading.RLock()
        self.count = 0
        self.pending: set[int] = set()
        self.problem: BaseException | None = None
        self._source: Iterator[Any] | None = None
        self._is_over = self._is_closed = False

    @property
    def is_done(self) -> bool:
        """Whether every input was pulled and has a result."""
        return self._is_over and not self.pending

    @property
    def what_is_missing(self) -> str:
        """What the plugin has not done, though it has ended."""
        if not self.pending:
            return f"ended after {self.count:,} inputs, and there are more"
        more = f" and for {len(self.pending) - 1:,} more" if len(self.pending) > 1 else ""
        return f"ended without a result for input {min(self.pending):,}{more}"

    def row_at(self, position: int) -> Row | None:
        return self._inputs.row_at(position) if isinstance(self._inputs, RowInputs) else None

    def __iter__(self) -> Iterator[Any]:
        with self.lock:
            if self._source is not None:
                raise self._refuse("iterates over its inputs a second time")
            self._source = iter(self._inputs)
        return _Pulled(self)

    def pull(self) -> Any:
        """Return the next input.

        Raises:
            StopIteration: there is none, or the iteration has ended.
            BaseException: what reading it raises, or what the plugin does wrong.
        """
        with self.lock:
            if self._is_closed or self._is_over or self._source is None:
                raise StopIteration
            if self.problem is not None:
                raise self.problem
            if len(self.pending) >= self._most:
                raise self._refuse(
                    f"read {len(self.pending):,} inputs ahead of their results, and a run may have more rows "
                    "than fit into memory"
                )
            try:
                input = next(self._source)
            except StopIteration:
                self._is_over = True
                raise
            except BaseException as error:
                self.problem = error
                raise
            self.pending.add(self.count)
            self.count += 1
            return input

    def close(self) -> None:
        """End the inputs: a thread of the plugin that is left gets no more."""
        with self.lock:
            self._is_closed = True

    def _refuse(self, what: str) -> BaseException:
        self.problem = self._broken(what)
        return self.problem


class _Pulled(Iterator[Any]):
    """An iterator that the plugin cannot close: the rows behind it are those of the run."""

    def __init__(self, given: _Given) -> None:
        self._given = given

    def __next__(self) -> Any:
        return self._given.pull()


class _Check:
    """What a plugin yields in one iteration, compared with what it was given.

    Args:
        plugin: the name of the plugin.
        given: its inputs.
        num_generations: how many generations each needs.
        on_error: whether an error is a result.
        ordered: whether results have the order of the inputs.
    """

    def __init__(
        self, plugin: str, given: _Given, num_generations: int, on_error: str, *, ordered: bool
    ) -> None:
        self._name = f"the executor of the plugin {plugin}"
        self._given = given
        self._count = num_generations
        self._raises = on_error == "raise"
        self._next = 0 if ordered else None

    def results(self, group: Any) -> tuple[list[Finished], str, Exception | None]:
        """Return the results of a group, what is wrong with others, and an error that ends the iteration."""
        if not isinstance(group, (list, tuple)):
            return [], f"yielded {_kind(group)} where a list of results is expected", None
        found: list[Finished] = []
        wrong, fatal = "", None
        for item in group:
            if not (isinstance(item, tuple) and len(item) == 3):
                wrong = (
                    wrong or f"yielded {_kind(item)} where a tuple of index, result and seconds is expected"
                )
                continue
            index, result, seconds = item
            problem = self._problem(index, result, seconds)
            if problem:
                wrong = wrong or problem
                continue
            self._given.pending.remove(index)
            if self._next is not None:
                self._next += 1
            sound = self._sound(result)
            if isinstance(sound, GenerationError) and (self._raises or sound.stops_run):
                fatal = fatal or sound
            else:
                found.append(Finished(index, sound, seconds))
        return found, wrong, fatal

    def _problem(self, index: Any, result: Any, seconds: Any) -> str:
        """Return what is wrong with a result beyond its output; an empty string if nothing is."""
        if type(index) is not int:
            return f"yielded a result whose index is {_kind(index)}, and not an int"
        if index not in self._given.pending:
            if 0 <= index < self._given.count:
                return f"yielded a second result for input {index:,}"
            return f"yielded a result for input {index}, and has taken {self._given.count:,} inputs"
        if self._next is not None and index != self._next:
            return f"yielded the result of input {index:,} where that of input {self._next:,} comes next"
        if isinstance(result, BaseException) and not isinstance(result, GenerationError):
            return f"yielded {_kind(result)} as the result of input {index:,}, and not a GenerationError"
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not (is_number and math.isfinite(seconds) and seconds >= 0):
            return (
                f"yielded {_kind(seconds)} as the seconds of input {index:,}, and not a number of at least 0"
            )
        return ""

    def _sound(self, result: Any) -> Any:
        """Return a result whose parts have their types: a run counts and stores them."""
        if isinstance(result, GenerationError):
            return result if _is_sound(result) else _repaired(result)
        try:
            return check_output(result, self._count, self._name)
        except GenerationError as error:
            return error
        except Exception as error:  # the output's own
            return GenerationError(f"{self._name} returned an output that cannot be read: {describe(error)}")


def _is_sound(error: Any) -> bool:
    with contextlib.suppress(Exception):  # a class of the plugin's may have set nothing
        return (
            type(error.message) is str
            and type(error.hint) is str
            and type(error.kind) is str
            and error.kind in ERROR_KINDS
            and type(error.attempts) is int
            and type(error.stops_run) is bool
            and type(error.outputs) is list
        )
    return False


def _repaired(error: GenerationError) -> GenerationError:
    """Return an error with what can be read of another one."""
    return GenerationError(
        str(getattr(error, "message", "")) or describe(error),
        kind=kind if isinstance(kind := getattr(error, "kind", None), str) else "unknown",  # type: ignore[arg-type]
        stops_run=getattr(error, "stops_run", False) is True,
        hint=str(getattr(error, "hint", "") or ""),
        outputs=outputs if isinstance(outputs := getattr(error, "outputs", ()), (list, tuple)) else (),
    )


def _kind(value: object) -> str:
    """Return what a value is, in a few words."""
    name = type(value).__name__
    return f"{value} of the type {name}" if isinstance(value, (bool, int, float)) else f"a {name}"
