"""An event loop of one's own, in a thread of one's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from stillhouse.errors import ConfigurationError

__all__ = ["LoopThread"]

T = TypeVar("T")

# An interrupt reaches a thread that waits for ever only on some systems; one that looks up now and
# then it reaches on all.
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
        self._thread = threading.Thread(target=_serve, args=(self.loop,), name=name, daemon=True)
        self._thread.start()
        self._finalizer = weakref.finalize(self, _stop, self.loop, self._thread, self._pid)

    @property
    def is_usable(self) -> bool:
        """Whether the loop runs in this process: a forked child inherits the object, not the thread."""
        return os.getpid() == self._pid and self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether the caller stands on this loop's thread."""
        return threading.current_thread() is self._thread

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it in this thread.

        An interrupt while waiting cancels the coroutine and waits until it has ended.
        """
        if self.is_current:
            coroutine.close()
            raise ConfigurationError(
                "a coroutine of an LLM calls that LLM synchronously, which would wait for ever",
                hint="use agenerate_outputs or aiter_outputs",
            )
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return self._wait(future)
        except BaseException:
            if not future.done():
                future.cancel()
                with contextlib.suppress(Exception, CancelledError):
                    self._wait(future)
            raise

    def _wait(self, future: Future[T]) -> T:
        while True:
            try:
                return future.result(WAIT_SECONDS)
            except TimeoutError:
                if future.done():
                    return future.result()
                if not self.is_usable:
                    raise ConfigurationError(
                        "the LLM was unloaded while it was used", hint="load it again"
                    ) from None

    def close(self) -> None:
        """Cancel what runs on the loop, wait until it has ended, and stop the thread."""
        if self.is_current:
            raise ConfigurationError(
                "a coroutine of an LLM unloads that LLM, which would wait for ever",
                hint="unload it from outside",
            )
        self._finalizer.detach()
        _stop(self.loop, self._thread, self._pid, None)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        try:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()


def _stop(
    loop: asyncio.AbstractEventLoop,
    thread: threading.Thread,
    pid: int,
    timeout: float | None = _EXIT_SECONDS,
) -> None:
    if os.getpid() != pid:
        return
    with contextlib.suppress(RuntimeError):  # it is closed already
        loop.call_soon_threadsafe(loop.stop)
    if threading.current_thread() is not thread:
        thread.join(timeout)
