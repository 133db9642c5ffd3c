"""`RunLimits`: the limits of a run with workers, on an event loop of their own.

What workers say of them does not wait for the process of the run to read rows or to write results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stillhouse._execution.leases import Closed, Opened, Used
from stillhouse._execution.loop_thread import LoopThread
from stillhouse.jobs.executors.messages import Died

if TYPE_CHECKING:
    from stillhouse.jobs.executors.hosted import HostedLimits

__all__ = ["RunLimits"]

Send = Callable[[Any], None]


class RunLimits:
    """The limits of all LLMs of a run. Its methods may be called in any thread.

    The copies of an LLM in the workers have theirs in common: those that their workers opened as the same
    number, with the same settings.
    """

    def __init__(self) -> None:
        self._thread: LoopThread | None = None
        self._hosted: dict[tuple[Any, ...], HostedLimits] = {}
        self._of_worker: dict[int, dict[int, HostedLimits]] = {}
        self._sends: dict[int, Send] = {}
        self._early: dict[int, list[Any]] = {}

    def start(self) -> None:
        """Begin to take messages."""
        self._thread = LoopThread("stillhouse-limits")

    def close(self) -> None:
        """Grant nothing more."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()

    def join(self, worker: int, send: Send) -> None:
        """Add a worker, and how messages are sent to it, which does not wait."""
        self._call(self._join, worker, send)

    def take(self, worker: int, message: Any) -> None:
        """Take what a worker says of limits, or that it died. It may come before the worker has joined."""
        self._call(self._take, worker, message)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        thread = self._thread
        if thread is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                thread.loop.call_soon_threadsafe(function, *arguments)

    # On the loop

    def _join(self, worker: int, send: Send) -> None:
        self._sends[worker] = send
        for message in self._early.pop(worker, ()):
            self._take(worker, message)

    def _take(self, worker: int, message: Any) -> None:
        send = self._sends.get(worker)
        if send is None:
            self._early.setdefault(worker, []).append(message)
            return
        leased = self._of_worker.setdefault(worker, {})
        if isinstance(message, Used):
            if message.number in leased:
                leased[message.number].take(worker, message)
        elif isinstance(message, Opened):
            leased[message.number] = hosted = self._host(message)
            hosted.join(worker, message, send)
        elif isinstance(message, Closed):
            if message.number in leased:
                leased.pop(message.number).leave(worker)
        elif isinstance(message, Died):
            del self._sends[worker], self._of_worker[worker]
            for hosted in leased.values():
                hosted.leave(worker)

    def _host(self, opened: Opened) -> HostedLimits:
        # A run whose LLM sends no requests does not import this.
        from stillhouse.jobs.executors.hosted import HostedLimits

        key = (
            opened.number,
            opened.max_concurrency,
            opened.requests_per_minute,
            opened.tokens_per_minute,
        )
        if key not in self._hosted:
            self._hosted[key] = HostedLimits(opened)
        return self._hosted[key]
