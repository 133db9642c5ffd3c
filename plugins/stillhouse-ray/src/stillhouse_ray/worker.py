"""`RayWorker`: a worker that is an actor, as the process of the run sees it."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from stillhouse import StillhouseError
from stillhouse.jobs.executors import Deliver, Died, Ended, Refused, WorkerHandle, packed, unpacked
from stillhouse_ray.actor import OVER
from stillhouse_ray.connection import Connected
from stillhouse_ray.hub import Hub
from stillhouse_ray.waiting import wait

__all__ = ["LostWorker", "RayWorker", "reason_of"]

UNLOAD_SECONDS = 60.0
"""How long a worker may take to unload its LLM."""

INTERRUPT_SECONDS = 5.0
"""How long it may take to cancel what it does."""

KILL_SECONDS = 5.0
"""How long Ray may take to say that an actor is gone."""

_EXIT = re.compile(r"Worker exit type: ([A-Z_]+)")


class RayWorker(WorkerHandle):
    """An actor that Ray places when there is room for it.

    Args:
        connection: the connection to the cluster.
        actor: the actor.
        hub: waits for what it says.
        deliver: takes what it says.
        setup: what it needs to begin, packed.
        environment: variables for its process.

    Attributes:
        asked: when it was asked for, by the monotonic clock.
    """

    def __init__(
        self,
        connection: Connected,
        actor: Any,
        hub: Hub,
        deliver: Deliver,
        setup: bytes,
        environment: dict[str, str],
    ) -> None:
        self._connection = connection
        self._actor = actor
        self._hub = hub
        self._deliver = deliver
        self._setup = setup
        self._environment = environment
        self._where = "a worker that was not placed"
        self.asked = monotonic()
        self._lock, self._dying = threading.Lock(), threading.Lock()
        self._begun = False
        self._early: list[bytes] = []
        self._closing = False
        self._over = threading.Event()
        self._gone = threading.Event()

    @property
    def is_gone(self) -> bool:
        """Whether it is dead."""
        return self._gone.is_set()

    def meet(self, versions: list[str], met: Callable[[RayWorker, dict[str, Any]], None]) -> None:
        """Ask it what it is, which it answers once it is placed."""

        def answered(about: Any, error: Exception | None) -> None:
            if error is not None:
                self._die(reason_of(error, self._where))
                return
            self._where = f"process {about['process']} on the node {about['node']}"
            met(self, about)

        self._hub.ask(self._actor.about.remote(versions), answered)

    def begin(self) -> None:
        """Send it the LLM, and listen to it."""
        if self._closing or self._gone.is_set():
            return
        self._hub.ask(self._actor.begin.remote(self._setup, self._environment), self._has_begun)
        with self._lock:
            self._begun = True
            for content in self._early:
                self._call(content)
            self._early.clear()
        self._listen()

    def refuse(self, error: StillhouseError) -> None:
        """Do without it."""
        self._deliver(Refused(error))
        self._kill()
        self._die(error.message)

    def lose(self, error: StillhouseError) -> None:
        """Do without it, as without every other one: the run ends with this error."""
        self._deliver(Ended(error))
        self._die(error.message)

    def abandon(self) -> None:
        """Let it do nothing more: an actor may outlive the head, and would generate for what it has."""
        if self._begun:
            with contextlib.suppress(Exception):
                self._actor.interrupt.remote()

    def send(self, message: Any) -> None:
        content = packed(message)
        with self._lock:
            if not self._begun:
                self._early.append(content)
            elif not (self._gone.is_set() or self._connection.lost.is_set()):
                self._call(content)

    def _call(self, content: bytes) -> None:
        try:
            self._actor.take.remote(content)
        except Exception as error:  # the node of this process is dead
            self._die(reason_of(error, self._where))

    def close(self, *, at_once: bool) -> None:
        self._closing = True
        if self._begun and not self._gone.is_set():
            if at_once:
                self._actor.interrupt.remote()
            wait(INTERRUPT_SECONDS if at_once else UNLOAD_SECONDS, self._over, self._gone)
        self._kill()
        if self._begun:
            wait(KILL_SECONDS, self._gone)

    def _kill(self) -> None:
        """Let Ray kill it. That waits for the head, which may be gone before this is noticed."""
        done, lost = threading.Event(), self._connection.lost

        def kill() -> None:
            with contextlib.suppress(Exception):  # it is dead, or out of reach
                self._connection.ray.kill(self._actor, no_restart=True)
            done.set()

        if not lost.is_set():
            threading.Thread(target=kill, name="stillhouse-ray-kill", daemon=True).start()
            wait(UNLOAD_SECONDS, done, lost)

    def _has_begun(self, _: Any, error: Exception | None) -> None:
        if error is not None and not self._gone.is_set():
            self._kill()
            self._die(reason_of(error, self._where))

    def _listen(self) -> None:
        self._hub.ask(self._actor.give.remote(), self._heard)

    def _heard(self, contents: Any, error: Exception | None) -> None:
        if self._gone.is_set():  # it was taken for dead
            return
        if error is not None:
            self._kill()  # it may only be out of reach
            self._die(reason_of(error, self._where))
            return
        self._listen()  # while these are looked at; and so its end is noticed
        for content in contents:
            if content == OVER:
                self._over.set()
                if not self._closing:
                    self._kill()
                return
            try:
                message = unpacked(content)
            except Exception as unread:  # nothing that follows can be read
                self._kill()
                self._die(f"its message cannot be read: {type(unread).__name__}: {unread}")
                return
            self._deliver(message)

    def _die(self, reason: str) -> None:
        with self._dying:
            if self._gone.is_set():
                return
            self._gone.set()
        self._deliver(Died(reason))


class LostWorker(WorkerHandle):
    """One that is not started any more, because the run ends with an error.

    Args:
        error: that error.
        deliver: takes it.
    """

    def __init__(self, error: StillhouseError, deliver: Deliver) -> None:
        deliver(Ended(error))
        deliver(Died(error.message))

    def send(self, message: Any) -> None:
        pass

    def close(self, *, at_once: bool) -> None:
        pass


def reason_of(error: Exception, where: str) -> str:
    """Say what a worker died of, as far as Ray knows.

    Args:
        error: what Ray raises for a call of its actor.
        where: the process and the node of the worker.
    """
    text = str(error)
    ended = _EXIT.search(text)
    kind = ended[1] if ended else ""
    if kind == "NODE_OUT_OF_MEMORY" or "low on memory" in text or type(error).__name__ == "OutOfMemoryError":
        return f"Ray killed {where}, because the node ran out of memory"
    if "node has died" in text or kind == "NODE_DIED":
        return f"the node of {where} has died"
    if type(error).__name__ == "ActorUnavailableError":
        return f"{where} cannot be reached any more"
    if getattr(error, "preempted", False):
        return f"the node of {where} was taken away"
    if "creation task" in text:
        last = text.strip().splitlines()[-1].strip()
        return f"it cannot start: {last[:300]}"
    if kind in ("SYSTEM_ERROR", "USER_ERROR"):
        return f"{where} was killed, as the system does when memory runs out, or crashed"
    return f"{where} is gone: {' '.join(text.split())[:300]}"
