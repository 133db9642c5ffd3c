"""`Entered`: an executor in use by the kit: in one thread, and in bounded time."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from queue import SimpleQueue
from typing import Any

from stillhouse import hookimpl
from stillhouse.outputs import prepare_output
from stillhouse.testing.desk import THREADS, Desk
from stillhouse.testing.rule import Broken

__all__ = ["ANSWERED", "Entered", "Results", "Seen", "chat"]

Results = dict[int, Any]
"""What each input gave, by its index."""

STEP_SECONDS = 0.5
"""How long something may take that would happen at once, before the next inputs are let go."""

ANSWERED = "a hook answers this"
"""The text that a hook answers."""


class Entered:
    """An executor that is used in one thread alone, each time in bounded time.

    Args:
        made: the executor, which was not entered.
        desk: where its LLM asks.
        seconds: how long it may take for whatever it does.

    Attributes:
        seen: hooks that may be registered.
        logged: what was logged on entry.
    """

    def __init__(self, made: Any, desk: Desk, seconds: float) -> None:
        self.desk = desk
        self.seen = Seen()
        self.logged: list[str] = []
        self._seconds = seconds
        self._made = made
        self._executor: Any = None
        self._is_left = True
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"{THREADS}run", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"{self._made!r} {self._made} {self._executor!r} {self._executor}"

    def enter(self) -> None:
        """Start the workers."""

        def enter() -> None:
            self._executor = self._made.__enter__()

        self._is_left = False
        try:
            self.wait(self.begin(enter), "entering it")
        except BaseException:
            self._is_left = True
            raise

    def leave(self) -> None:
        """End the workers."""
        self._is_left = True
        self.wait(self.begin(lambda: self._made.__exit__(None, None, None)), "leaving it")

    def close(self) -> None:
        """Leave it, whatever was broken, and close the desk."""
        self.desk.let_go()
        try:
            if not self._is_left:
                self.leave()
        except Exception:  # noqa: S110 - of which a rule of its own speaks
            pass
        finally:
            self._tasks.put(None)
            self.desk.close()

    def check_input(self, input: Any) -> None:
        """Let it check an input."""
        self.wait(self.begin(lambda: self._executor.check_input(input)), "check_input")

    def iterate(self, inputs: Iterable[Any], *args: Any, **kwargs: Any) -> Iterator[tuple[int, Any]]:
        """Begin an iteration, in the calling thread. It yields an index and a result each time."""
        with contextlib.closing(self._executor.iter_finished(inputs, *args, **kwargs)) as groups:
            for group in groups:
                for index, result, _ in group:
                    yield index, result

    def collect(self, inputs: Iterable[Any], *args: Any, **kwargs: Any) -> Results:
        """Generate for inputs, and return what each gave.

        Raises:
            Broken: an input has two results or none, or the iteration does not end.
        """
        pairs = self.pairs(inputs, *args, **kwargs)
        found = dict(pairs)
        if len(found) != len(pairs):
            raise Broken(f"it gave {len(pairs)} results for {len(found)} inputs")
        return found

    def pairs(self, inputs: Iterable[Any], *args: Any, **kwargs: Any) -> list[tuple[int, Any]]:
        """Generate for inputs, and return each result with its index, as they came."""
        work = self.begin(lambda: list(self.iterate(inputs, *args, **kwargs)))
        found: list[tuple[int, Any]] = self.wait(work, "an iteration")
        return found

    def begin(self, function: Callable[[], Any]) -> Future[Any]:
        """Let the thread of the executor call a function."""
        future: Future[Any] = Future()
        future.add_done_callback(lambda _: self.desk.notify())
        context = contextvars.copy_context()
        self._tasks.put((future, lambda: context.run(function)))
        return future

    def wait(self, future: Future[Any], what: str) -> Any:
        """Return what a function returned that was begun.

        Raises:
            Broken: it has not ended.
        """
        try:
            return future.result(self._seconds)
        except NotYet:
            if future.done():
                raise
            self._is_left = True  # it can be used no more
            raise Broken(f"{what} had not ended after {self._seconds:g} seconds") from None

    def step(self, future: Future[Any]) -> None:
        """Let inputs go, those in flight each time, until a function has ended or was given all."""
        for _ in range(int(self._seconds / STEP_SECONDS)):
            with contextlib.suppress(Exception):
                future.exception(STEP_SECONDS)
            if future.done():
                return
            self.desk.let_go(self.desk.in_flight)
        self.desk.let_go()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, function = task
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)


class Seen:
    """Hooks that note their rows, and answer one input."""

    def __init__(self) -> None:
        self.before: list[Any] = []
        self.after: list[Any] = []

    @hookimpl
    def before_generate(self, input: Any, num_generations: int, row: Any) -> Any:
        self.before.append(row and row.index)
        is_known = input == chat(ANSWERED)
        return prepare_output(["answered"] * num_generations) if is_known else None

    @hookimpl
    def after_generate(self, row: Any) -> None:
        self.after.append(row and row.index)


def chat(text: object) -> Any:
    """Return an input with a text."""
    return [{"role": "user", "content": str(text)}]
