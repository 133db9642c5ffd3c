"""`LoopThread`: an event loop that nobody else uses, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from stillhouse.errors import ConfigurationError

__all__ = ["WAIT_SECONDS", "LoopThread", "wait_briefly"]

T = TypeVar("T")

# An interrupt that comes when a thread, or an event loop, is about to wait is noticed when the
# waiting ends, and on some systems so is any other. Waiting in short turns notices all.
WAIT_SECONDS = 1.0

_EXIT_SECONDS = 10.0


class LoopThread:
    """A running event loop that nobody else uses.

    The thread is a daemon: it never keeps the interpreter from exiting. It is closed by `close()`,
    else when this object is collected or the interpreter exits.
    """

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._watchers: set[Callable[[], Any]] = set()
        self._ending = threading.Event()
        self._closers: list[Callable[[], Coroutine[Any, Any, Any]]] = []
        self._thread = threading.Thread(
            target=_serve,
            args=(self.loop, self._watchers, self._closers, self._ending),
            name=name,
            daemon=True,
        )
        self._thread.start()
        self._finalizer = weakref.finalize(self, _stop, self.loop, self._thread, self._pid)

    @property
    def is_usable(self) -> bool:
        """Whether the loop runs, in this process."""
        return self.is_own and self._thread.is_alive() and not self.loop.is_closed()

    @property
    def is_ending(self) -> bool:
        """Whether the loop cancels what is left on it, or has done so."""
        return self._ending.is_set()

    @property
    def is_own(self) -> bool:
        """Whether the loop was made in this process: a forked child inherits the object, not the thread."""
        return os.getpid() == self._pid

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this loop's thread."""
        return threading.current_thread() is self._thread

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it in this thread.

        An interrupt while waiting cancels the coroutine and waits until it has ended.

        Raises:
            ConfigurationError: the loop has ended, or this is its own thread.
        """
        if self.is_current:
            coroutine.close()
            raise ConfigurationError(
                "a coroutine of an LLM calls that LLM synchronously, which would wait for ever",
                hint="use agenerate_outputs or aiter_outputs",
            )
        ended = threading.Event()
        with self.watched(ended.set):
            tasks = self.start(coroutine, ended.set)
            try:
                self._wait(ended)
            except BaseException:
                _call_soon(self.loop, lambda: _cancel(tasks))
                self._wait(ended)
                raise
        return _result(coroutine, tasks)

    def _wait(self, ended: threading.Event) -> None:
        while not ended.wait(WAIT_SECONDS) and self.is_usable:
            pass

    async def arun(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """`run` for a caller on another loop. Cancelling the caller leaves the coroutine running.

        Raises:
            ConfigurationError: the loop has ended.
        """
        own_loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            _call_soon(own_loop, ended.set)

        with self.watched(end):
            tasks = self.start(coroutine, end)
            while not ended.is_set():
                await wait_briefly(ended)
        return _result(coroutine, tasks)

    @contextlib.contextmanager
    def watched(self, notify: Callable[[], Any]) -> Iterator[None]:
        """Call `notify`, on the loop's thread, if the loop ends inside this context."""
        self._watchers.add(notify)
        try:
            yield
        finally:
            self._watchers.discard(notify)

    def close_at_end(self, close: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Run a coroutine when the loop ends, however that comes; it must not hold what owns this thread."""
        self._closers.append(close)

    def end(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that cleans up; once the loop has ended, do nothing.

        On the loop's own thread, where a generator may be collected, it does not wait.
        """
        with contextlib.suppress(ConfigurationError):
            if self.is_current:
                self.start(coroutine, lambda: None)
            else:
                self.run(coroutine)

    async def aend(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """`end` for a caller on another loop."""
        with contextlib.suppress(ConfigurationError):
            await self.arun(coroutine)

    def start(self, coroutine: Coroutine[Any, Any, T], ended: Callable[[], Any]) -> list[asyncio.Task[T]]:
        """Start a task on the loop; it is in the list once it runs, and `ended` is called after it."""
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            tasks.append(self.loop.create_task(coroutine))
            tasks[0].add_done_callback(lambda _: ended())

        if not (self.is_usable and _call_soon(self.loop, start)):
            coroutine.close()
            raise _ended()
        return tasks

    def close(self) -> None:
        """Cancel what runs on the loop, wait until it has ended, and stop the thread."""
        self._finalizer.detach()
        _stop(self.loop, self._thread, self._pid, None)


async def wait_briefly(event: asyncio.Event) -> None:
    """Wait for an event, at most `WAIT_SECONDS`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WAIT_SECONDS):
            await event.wait()


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> bool:
    """Call a function on a loop from another thread; False if that loop is closed."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        return False
    return True


def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()


def _result(coroutine: Coroutine[Any, Any, T], tasks: list[asyncio.Task[T]]) -> T:
    if not tasks:
        coroutine.close()  # the loop ended before it began
    if not tasks or not tasks[0].done() or tasks[0].cancelled():
        raise _ended()
    return tasks[0].result()


def _ended() -> ConfigurationError:
    return ConfigurationError("the LLM was unloaded while it was used", hint="load it again")


def _serve(
    loop: asyncio.AbstractEventLoop,
    watchers: set[Callable[[], Any]],
    closers: list[Callable[[], Coroutine[Any, Any, Any]]],
    ending: threading.Event,
) -> None:
    try:
        loop.run_forever()
    finally:
        ending.set()
        try:
            _cancel_all(loop)
            for close in closers:
                with contextlib.suppress(Exception):
                    loop.run_until_complete(close())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            _cancel_all(loop)
        finally:
            loop.close()
            for notify in list(watchers):
                notify()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel every task and wait until it has ended, those included that others start meanwhile."""
    while True:
        loop.run_until_complete(asyncio.sleep(0))  # what was handed over before the loop stopped
        tasks = asyncio.all_tasks(loop)
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


def _stop(
    loop: asyncio.AbstractEventLoop,
    thread: threading.Thread,
    pid: int,
    timeout: float | None = _EXIT_SECONDS,
) -> None:
    if os.getpid() != pid:
        return
    _call_soon(loop, loop.stop)
    if threading.current_thread() is not thread:
        thread.join(timeout)
