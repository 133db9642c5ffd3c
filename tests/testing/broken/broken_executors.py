"""Executors that each break one rule, and which rule each breaks."""

from __future__ import annotations

import copy
import itertools
import logging
import os
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from good_executors import Copies, Copy

from stillhouse import GenerationError, hookimpl
from stillhouse._execution.stopping import Stop, current_stop
from stillhouse.protocols import InputWithArguments, RowInputs
from stillhouse.registry.policy import Policy
from stillhouse.registry.registry import Registry

T = TypeVar("T", bound=type[Any])

BREAKS: dict[type[Any], str] = {}


def breaks(rule: str) -> Callable[[T], T]:
    def note(cls: T) -> T:
        BREAKS[cls] = rule
        return cls

    return note


class Changing(Copy):
    """Changes results."""

    def iter_finished(self, inputs: Any, *args: Any, **kwargs: Any) -> Generator[list[Any], None, None]:
        for group in super().iter_finished(inputs, *args, **kwargs):
            yield [self.changed(finished) for finished in group]

    def changed(self, finished: Any) -> Any:
        return finished


def killed(result: Any) -> bool:
    """Whether a result is that of an input that ends its worker."""
    return isinstance(result, GenerationError) and "ended a process" in result.message


@breaks("X00")
class Shouts(Changing):
    def changed(self, finished: Any) -> Any:
        result = finished.result
        if isinstance(result, dict):
            result = {**result, "statistics": {}}
        return finished._replace(result=result)


@breaks("X01")
class Anybody(Copy):
    """Its plugin takes every name."""


@breaks("X02")
class EagerThread(Copy):
    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.end.wait, args=(60,), daemon=True)
        self.thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self.end.set()
        self.thread.join()
        super().__exit__()


@breaks("X02")
class LeavesAThread(Copy):
    def __enter__(self) -> Any:
        threading.Thread(target=threading.Event().wait, args=(60,), daemon=True).start()
        return super().__enter__()


@breaks("X02")
class NeverUnloads(Copy):
    """Does not unload the LLM, unless an iteration was closed in the middle."""

    was_closed = False

    def iter_finished(self, *args: Any, **kwargs: Any) -> Any:
        try:
            yield from super().iter_finished(*args, **kwargs)
        except BaseException:
            self.was_closed = True
            raise

    def __exit__(self, *exc_info: object) -> None:
        if self.was_closed:
            super().__exit__()


@breaks("X03")
class AsFinished(Copy):
    def iter_finished(self, *args: Any, ordered: bool = True, **kwargs: Any) -> Any:
        return super().iter_finished(*args, ordered=False, **kwargs)


@breaks("X03")
class Twice(Copy):
    """Gives results twice where their order does not matter."""

    def iter_finished(self, *args: Any, ordered: bool = True, on_error: Any = "raise", **kwargs: Any) -> Any:
        for group in super().iter_finished(*args, ordered=ordered, on_error=on_error, **kwargs):
            yield group
            if not ordered:
                yield group


@breaks("X04")
class LosesTheKind(Changing):
    def changed(self, finished: Any) -> Any:
        result = finished.result
        if isinstance(result, GenerationError) and result.kind == "timeout":
            return finished._replace(result=GenerationError(result.message, attempts=result.attempts))
        return finished


@breaks("X04")
class AlwaysRaises(Copy):
    def iter_finished(self, *args: Any, on_error: Any = "raise", **kwargs: Any) -> Any:
        return super().iter_finished(*args, on_error="raise", **kwargs)


@breaks("X04")
class NeverRaises(Copy):
    def iter_finished(self, *args: Any, on_error: Any = "raise", **kwargs: Any) -> Any:
        return super().iter_finished(*args, on_error="yield", **kwargs)


@breaks("X05")
class Quiet(Copy):
    """Takes an error that stops the run for the end."""

    def iter_finished(self, *args: Any, **kwargs: Any) -> Any:
        try:
            yield from super().iter_finished(*args, **kwargs)
        except GenerationError as error:
            if not error.stops_run:
                raise


@breaks("X05")
class GoesOn(Copy):
    """Raises an error that stops the run once all other inputs were generated for."""

    def iter_finished(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        fatal = None
        inputs = inputs if isinstance(inputs, RowInputs) else iter(inputs)
        while True:
            try:
                yield from super().iter_finished(inputs, *args, **kwargs)
            except GenerationError as error:
                if not error.stops_run:
                    raise
                fatal = error
                continue
            if fatal is not None:
                raise fatal
            return


@breaks("X06")
class Deaf(Copy):
    """Hears of no request to stop."""

    def iter_finished(self, *args: Any, **kwargs: Any) -> Any:
        groups = super().iter_finished(*args, **kwargs)
        stop = Stop()
        try:
            while True:
                token = current_stop.set(stop)
                try:
                    group = next(groups, None)
                finally:
                    current_stop.reset(token)
                if group is None:
                    return
                yield group
        finally:
            groups.close()


@breaks("X06")
class Hasty(Copy):
    """Drops what is in flight when the run is to stop."""

    def iter_finished(self, *args: Any, **kwargs: Any) -> Any:
        stop = current_stop.get()
        for group in super().iter_finished(*args, **kwargs):
            if stop.requested:
                return
            yield group


@breaks("X07")
class Lingers(Copy):
    def iter_finished(self, *args: Any, **kwargs: Any) -> Any:
        try:
            yield from super().iter_finished(*args, **kwargs)
        except GeneratorExit:
            threading.Event().wait(8)
            raise


@breaks("X08")
class AnotherKind(Changing):
    def changed(self, finished: Any) -> Any:
        if killed(finished.result):
            return finished._replace(result=GenerationError("a worker died"))
        return finished


@breaks("X08")
class DiesToo(Changing):
    def changed(self, finished: Any) -> Any:
        if killed(finished.result):
            raise GenerationError("a worker died", kind="server")
        return finished


@breaks("X08")
class Tireless(Changing):
    def changed(self, finished: Any) -> Any:
        if killed(finished.result):
            chats = [[{"role": "user", "content": "5"}]] * 20
            list(self.copy.iter_finished(chats, on_error="yield"))
        return finished


@breaks("X08")
class LosesOthers(Copy):
    """The inputs after one whose worker died are lost."""

    def iter_finished(self, *args: Any, **kwargs: Any) -> Any:
        lost = False
        for group in super().iter_finished(*args, **kwargs):
            kept = []
            for finished in group:
                if not lost:
                    kept.append(finished)
                lost = lost or killed(finished.result)
            if kept:
                yield kept


@breaks("X09")
class Hungry(Copy):
    def iter_finished(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(inputs, RowInputs):
            inputs = list(inputs)
        return super().iter_finished(inputs, *args, **kwargs)


@breaks("X10")
class NoArguments(Copy):
    def iter_finished(self, *args: Any, **kwargs: Any) -> Any:
        kept = {name: kwargs[name] for name in ("on_error", "ordered") if name in kwargs}
        return super().iter_finished(*args, **kept)


@breaks("X10")
class OneGeneration(Copy):
    def iter_finished(self, inputs: Any, num_generations: int = 1, **kwargs: Any) -> Any:
        return super().iter_finished(inputs, 1, **kwargs)


class Without(RowInputs):
    def __init__(self, inputs: RowInputs) -> None:
        self.inputs = inputs

    def __iter__(self) -> Any:
        for input in self.inputs:
            yield input.input if isinstance(input, InputWithArguments) else input

    def row_at(self, position: int) -> Any:
        return self.inputs.row_at(position)


@breaks("X10")
class NoArgumentsOfRows(Copy):
    def iter_finished(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(inputs, RowInputs):
            inputs = Without(inputs)
        return super().iter_finished(inputs, *args, **kwargs)


@breaks("X11")
class Once(Copy):
    used = False

    def iter_finished(self, *args: Any, **kwargs: Any) -> Any:
        if self.used:
            raise RuntimeError("it was used before")
        self.used = True
        return super().iter_finished(*args, **kwargs)


@breaks("X11")
class CountsOn(Copy):
    """The indexes of an iteration follow those of the one before."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.count = itertools.count()

    def iter_finished(self, *args: Any, **kwargs: Any) -> Any:
        for group in super().iter_finished(*args, **kwargs):
            yield [finished._replace(input_index=next(self.count)) for finished in group]


@breaks("X12")
class WithoutHooks(Copy):
    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.copy.use_registry(Registry(entry_points=[], policy=Policy()))


@breaks("X12")
class HooksTwice(Copy):
    def iter_finished(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        for group in super().iter_finished(inputs, *args, **kwargs):
            for index, result, _ in group:
                row = inputs.row_at(index) if isinstance(inputs, RowInputs) else None
                self.llm.registry.hooks().after_generate(self.llm, None, 1, {}, result, False, row)
            yield group


@breaks("X13")
class LoadsLate(Copy):
    def __enter__(self) -> Any:
        return self

    def check_input(self, input: Any) -> None:
        self.copy.load()
        super().check_input(input)

    def iter_finished(self, *args: Any, **kwargs: Any) -> Any:
        self.copy.load()
        return super().iter_finished(*args, **kwargs)


@breaks("X13")
class HidesTheError(Copy):
    def __enter__(self) -> Any:
        try:
            return super().__enter__()
        except Exception as error:
            raise RuntimeError("a worker has failed") from error


@breaks("X14")
class FindsOutLater(Copy):
    def copied(self, llm: Any) -> Any:
        self.error: Exception | None = None
        try:
            return super().copied(llm)
        except Exception as error:
            self.error = error
            return copy.copy(llm)

    def iter_finished(self, *args: Any, **kwargs: Any) -> Any:
        if self.error is not None:
            raise self.error
        return super().iter_finished(*args, **kwargs)


@breaks("X14")
class AnyError(Copy):
    def copied(self, llm: Any) -> Any:
        try:
            return super().copied(llm)
        except Exception as error:
            raise TypeError(str(error)) from error


@breaks("X15")
class LogsTheKey(Copy):
    def __enter__(self) -> Any:
        if self.llm.api_key:
            logging.getLogger("executor").debug("key: %s", self.llm.api_key.get_secret_value())
        return super().__enter__()


@breaks("X15")
class ShowsTheKey(Copy):
    def __repr__(self) -> str:
        return f"ShowsTheKey({self.llm.api_key and self.llm.api_key.get_secret_value()!r})"


@breaks("X15")
class KeyInTheEnvironment(Copy):
    def __enter__(self) -> Any:
        if self.llm.api_key:
            os.environ["MY_KEY"] = self.llm.api_key.get_secret_value()
        try:
            return super().__enter__()
        finally:
            os.environ.pop("MY_KEY", None)


@breaks("X16")
class EachItsOwn(Copy):
    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.copy.max_concurrency *= 2


@breaks("X17")
class ChecksNothing(Copy):
    def check_input(self, input: Any) -> None: ...


class TakesEveryName:
    @hookimpl
    def make_executor(self, llm: Any) -> Any:
        return Anybody(llm)


def plugin(executor: type[Any]) -> Any:
    """The plugin of an executor."""
    if executor is Anybody:
        return TakesEveryName()
    return type(f"{executor.__name__}Plugin", (Copies,), {"executor": executor})()
