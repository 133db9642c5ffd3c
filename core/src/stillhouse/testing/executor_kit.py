"""`ExecutorKit`: the base of the rules on executors: makes one, and uses it in bounded time."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from stillhouse.registry.policy import Policy
from stillhouse.registry.registry import Registry
from stillhouse.testing.desk import THREADS, Desk
from stillhouse.testing.entered import Entered
from stillhouse.testing.executed import ExecutedLLM
from stillhouse.testing.hook_kit import HookKit
from stillhouse.testing.rule import Broken

__all__ = ["LIMIT", "SECRET", "ExecutorKit", "children", "logged", "threads"]


WORKERS = 2

LIMIT = 4
"""How many inputs may be in flight."""

SECRET = "sk-conformance-0123456789abcdef"  # noqa: S105 - of nobody
"""A secret of the LLM that several rules use."""


class ExecutorKit(HookKit):
    """The base of the rules on executors. An author gives `make`, and sets `executor`."""

    executor: ClassVar[str] = ""
    """The name of the executor, as a user gives it to `--executor`."""

    address: ClassVar[str | None] = None
    """Its address, what a user gives after the colon; `None` for none."""

    seconds: ClassVar[float] = 60.0
    """How long an executor may take to start its workers, to end them, or to generate for some inputs."""

    _shared: ClassVar[Entered | None] = None

    @classmethod
    def teardown_class(cls) -> None:
        """Clean up; pytest calls it after the last test of the class."""
        cls.discard()
        super().teardown_class()

    @classmethod
    def discard(cls) -> None:
        """Leave the executor that several rules use."""
        shared, cls._shared = cls._shared, None
        if shared is not None:
            shared.close()

    def make_executor(self, llm: Any) -> Any:
        """Return an executor that was not entered; no other one is entered.

        Args:
            llm: the LLM.
        """
        self.discard()
        executor = self.call(
            "make_executor", name=self.executor, address=self.address, llm=llm, workers=WORKERS
        )
        if executor is None:
            raise Broken(f"make_executor returned None for {self.executor!r}")
        return executor

    def desk(self) -> Desk:
        """Return a new desk, until the test ends."""
        desk = Desk()
        self._stack.callback(desk.close)
        return desk

    def llm(self, desk: Desk, **fields: Any) -> ExecutedLLM:
        """Return an LLM that is not loaded, and calls no hooks."""
        llm = ExecutedLLM(port=desk.port, home=os.getpid(), max_concurrency=LIMIT, **fields)
        llm.use_registry(Registry(entry_points=[], policy=Policy()))
        return llm

    def made(self, **fields: Any) -> Entered:
        """Return an executor that was not entered, until the test ends."""
        desk = self.desk()
        entered = Entered(self.make_executor(self.llm(desk, **fields)), desk, self.seconds)
        self._stack.callback(entered.close)
        return entered

    def entered(self) -> Entered:
        """Return an executor that was entered, until the test ends."""
        entered = self.made()
        entered.enter()
        return entered

    def shared(self) -> Entered:
        """Return an executor that was entered and that several rules use; forget what its desk noted."""
        cls = type(self)
        if cls._shared is None:
            desk = Desk()
            llm = self.llm(desk, tells_hooks=True, api_key=SECRET)
            cls._shared = entered = Entered(self.make_executor(llm), desk, self.seconds)
            llm.registry.register_hooks("seen", entered.seen)
            try:
                with logged() as entered.logged:
                    entered.enter()
            except BaseException:
                cls.discard()
                raise
        cls._shared.desk.begin()
        return cls._shared


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(0)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {record.__dict__}")


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Keep what is logged at any level."""
    handler = _Lines()
    loggers = [logging.getLogger(), logging.getLogger("stillhouse")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    loggers[0].addHandler(handler)
    try:
        yield handler.lines
    finally:
        loggers[0].removeHandler(handler)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def children() -> set[int]:
    """Return the processes that this one has started and that are there, where the system shows them."""
    found: set[int] = set()
    for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(number) for number in path.read_text().split()}
    return found


def threads() -> set[threading.Thread]:
    """Return the threads of this process that are not the kit's own."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith(THREADS)}
