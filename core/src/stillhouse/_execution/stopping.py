"""`Stop`: the request to send nothing more, seen by everything that works for one run.

A run sets it for the code that it calls. What is in flight ends as it would have ended; what was not sent
is dropped: its task is cancelled, and its input has no result. That is an input that waits in a window, a
request that waits for a permit or for its next attempt, and a job that no engine has taken.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from stillhouse.errors import GenerationError
from stillhouse.typing import GenerateOutput

__all__ = ["Stop", "StoppedError", "current_stop", "has_stopped", "stopping_with"]


class Stop:
    """A request to stop, made at most once. It may be made in any thread, and in a signal's handler.

    Attributes:
        requested: whether nothing more is to be sent.
    """

    def __init__(self) -> None:
        self.requested = False
        self._waiting: dict[asyncio.Task[Any], Callable[[], bool] | None] = {}
        self._watchers: dict[object, Callable[[], Any]] = {}

    def __call__(self) -> bool:
        return self.requested

    def request(self) -> None:
        """Make the request."""
        self.requested = True  # first: whoever begins to wait from now on sees it
        for notify in tuple(self._watchers.values()):
            notify()
        for task in tuple(self._waiting):
            with contextlib.suppress(RuntimeError):  # its loop is closed
                task.get_loop().call_soon_threadsafe(self._drop, task)

    def _drop(self, task: asyncio.Task[Any]) -> None:
        """On the loop of a task: cancel it if it still waits."""
        if task in self._waiting:
            is_waiting = self._waiting[task]
            if is_waiting is None or is_waiting():
                task.cancel()

    def check(self) -> None:
        """Drop the running task if the request was made: it is about to send something.

        Raises:
            CancelledError: it was.
        """
        if self.requested:
            raise asyncio.CancelledError

    @contextlib.contextmanager
    def interrupting(self, is_waiting: Callable[[], bool] | None = None) -> Iterator[None]:
        """Cancel the running task if the request is made while it waits in this block, to send something.

        Args:
            is_waiting: whether it waits still, asked when the request is made.

        Raises:
            CancelledError: the request was made before.
        """
        task = asyncio.current_task()
        assert task is not None
        self._waiting[task] = is_waiting
        try:
            self.check()
            yield
        finally:
            del self._waiting[task]

    @contextlib.contextmanager
    def watched(self, notify: Callable[[], Any]) -> Iterator[None]:
        """Call `notify`, in whatever thread, if the request is made while the block runs."""
        key = object()
        self._watchers[key] = notify
        try:
            yield
        finally:
            del self._watchers[key]


class StoppedError(GenerationError):
    """Some generations of an input were made, and the run stopped before the others were asked for."""

    def __init__(self, outputs: list[GenerateOutput | None]) -> None:
        super().__init__(
            "the run was stopped before all generations were made",
            kind="connection",
            outputs=outputs,
            hint="make the same command again: only the missing ones are asked for",
        )

    def __reduce__(self) -> tuple[type[StoppedError], tuple[list[GenerateOutput | None]]]:
        return type(self), (self.outputs,)


def has_stopped(error: BaseException | None) -> bool:
    """Return whether an error only means that the run was stopped, however it is wrapped."""
    for _ in range(10):
        if error is None or isinstance(error, StoppedError):
            return error is not None
        error = error.__cause__
    return False


_NEVER = Stop()

current_stop: ContextVar[Stop] = ContextVar("current_stop", default=_NEVER)
"""The request to stop that the running code obeys."""


@contextlib.contextmanager
def stopping_with(stop: Stop) -> Iterator[None]:
    """Let what the block calls obey a request to stop; what it drops for that does not leave the block."""
    token = current_stop.set(stop)
    try:
        yield
    except asyncio.CancelledError:
        if not stop.requested:
            raise
    finally:
        current_stop.reset(token)
