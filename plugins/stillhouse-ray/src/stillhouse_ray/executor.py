"""`RayExecutor`: what `--executor ray` gives: the workers of Stillhouse, each of which is an actor."""

from __future__ import annotations

import contextlib
import logging
import threading
from contextlib import AbstractContextManager
from functools import partial
from time import monotonic
from typing import Any

from stillhouse import LLM, ConfigurationError, GenerationError
from stillhouse.jobs.executors import Deliver, Setup, WorkerHandle, Workers, packed
from stillhouse.protocols import Executor
from stillhouse_ray import actor as actors
from stillhouse_ray.connection import Connected, check, connected
from stillhouse_ray.head import HeadWatch
from stillhouse_ray.hub import Hub
from stillhouse_ray.needs import Needs, needs_of, shown
from stillhouse_ray.nodes import difference, environment_of, versions_for
from stillhouse_ray.settings import RaySettings
from stillhouse_ray.worker import LostWorker, RayWorker

__all__ = ["RayExecutor"]

NOTICE_SECONDS = 15.0
"""How long workers may take to be placed before a line says what they wait for."""

GATHER_SECONDS = 20.0
"""How long those that the cluster has room for may take, after the first one."""

_logger = logging.getLogger("stillhouse.ray")


class RayExecutor(AbstractContextManager[Executor]):
    """Connects on entry, and places the workers; the run begins when the first one is ready.

    Args:
        llm: the LLM, which is not loaded.
        address: the address of the cluster, `auto`, or `None` for one on this machine.
        count: how many workers; `None` for as many as the cluster has room for.
        settings: what each worker gets.

    Raises:
        ConfigurationError: the address or the LLM cannot be used.
    """

    def __init__(self, llm: LLM, address: str | None, count: int | None, settings: RaySettings) -> None:
        check(address, settings.head_seconds)
        self._llm = llm
        self._address = address
        self._count = count
        self._settings = settings
        self._needs = needs_of(llm, settings)
        self._stack = contextlib.ExitStack()
        Workers(llm, count or 1, _nowhere)  # refuses what cannot be sent

    def __enter__(self) -> Executor:
        with contextlib.ExitStack() as stack:
            seconds = self._settings.head_seconds
            connection = stack.enter_context(connected(self._address, self._count, self._needs, seconds))
            ray = connection.ray
            count = self._count or max(1, self._needs.fit(ray.cluster_resources()))
            crew = _Crew(connection, self._llm, count, self._needs, self._settings)
            is_gone = f"the head of the Ray cluster at {connection.head} did not answer for {seconds:g} s"
            stack.enter_context(HeadWatch(connection.head, seconds, partial(crew.lose, is_gone)))
            stack.callback(crew.hub.close)
            crew.hub.start()
            workers = stack.enter_context(Workers(self._llm, count, crew.launch, enough=1))
            self._stack = stack.pop_all()
        return workers

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()


class _Crew:
    """Places the workers, looks at what each is, and lets it begin.

    Those that the cluster has room for begin together: one that cannot work for this process is so refused
    before the first row. The others begin when they are placed.
    """

    def __init__(
        self, connection: Connected, llm: LLM, count: int, needs: Needs, settings: RaySettings
    ) -> None:
        self._connection = connection
        self._ray = ray = connection.ray
        self._needs = needs
        self._count = count
        self._wait_seconds = settings.wait_seconds
        self._environment = environment_of(llm, settings.environment)
        self._versions: dict[str, str] = {}
        self._actor = _actor_class(ray).options(max_restarts=0, **needs.options)
        self.hub = Hub(ray, self._tick, self._break)
        self._lock = threading.Lock()
        self._workers: list[RayWorker] = []
        self._placing: list[RayWorker] = []
        self._waiting: list[RayWorker] = []
        self._fatal: GenerationError | None = None
        self._expected = max(1, min(count, needs.fit(ray.available_resources())))
        self._is_open = self._noticed = self._told = self._stands = False
        self._started = monotonic()
        self._first = 0.0

    def launch(self, setup: Setup, deliver: Deliver) -> WorkerHandle:
        """Ask the cluster to place a worker."""
        fatal = self._ends_with()
        if fatal is not None:
            return LostWorker(fatal, deliver)
        if not self._versions:
            self._versions = versions_for(setup.llm)
        worker = RayWorker(
            self._connection, self._actor.remote(), self.hub, deliver, packed(setup), self._environment
        )
        with self._lock:
            self._workers = [other for other in self._workers if not other.is_gone]
            self._workers.append(worker)
            self._placing.append(worker)
        fatal = self._ends_with()
        if fatal is not None:  # since it was asked for
            worker.lose(fatal)
        else:
            worker.meet(list(self._versions), self._met)
        return worker

    def _ends_with(self) -> GenerationError | None:
        """Return the error that the run ends with, if there is one by now."""
        with self._lock:
            return self._fatal

    def _break(self, error: Exception) -> None:
        said = " ".join(str(error).split())[:300]
        self.lose(f"the connection to the Ray cluster at {self._connection.head} is broken: {said}")

    def lose(self, problem: str) -> None:
        """End the run, because the cluster is out of reach. In any thread.

        Args:
            problem: what has happened.
        """
        error = GenerationError(
            problem,
            kind="server",
            stops_run=True,
            hint="run the same command again to resume: on another cluster, or with --executor processes",
        )
        self._connection.lost.set()
        with self._lock:
            if self._fatal is not None:
                return
            self._fatal = error
            workers = [worker for worker in self._workers if not worker.is_gone]
        for worker in workers:
            worker.lose(error)
        for worker in workers:
            worker.abandon()

    def _met(self, worker: RayWorker, about: dict[str, Any]) -> None:
        """Let a worker begin that was placed, or refuse it."""
        with self._lock:
            self._placing = [other for other in self._placing if other is not worker]
        error = difference(self._versions, about)
        if error is not None:
            worker.refuse(error)
        elif self._is_open:
            worker.begin()
        else:
            self._waiting.append(worker)
            self._first = self._first or monotonic()

    def _tick(self) -> None:
        """Look at who is waited for. In the thread of the hub, as `_met`."""
        now = monotonic()
        if not self._is_open and self._waiting:
            if len(self._waiting) < self._expected and now < self._first + GATHER_SECONDS:
                return
            self._is_open = True
            waiting, self._waiting = self._waiting, []
            for worker in waiting:
                worker.begin()
        if now >= self._started + NOTICE_SECONDS:
            self._notice(now)

    def _notice(self, now: float) -> None:
        """Say which workers have not been placed; refuse them if none is for too long."""
        with self._lock:
            self._placing = [worker for worker in self._placing if not worker.is_gone]
            placing = [worker for worker in self._placing if worker.asked < now - NOTICE_SECONDS]
            stands = len(self._placing) == sum(not worker.is_gone for worker in self._workers)
        if self._fatal is not None:
            return
        if self._is_open:
            if placing and stands and not self._stands:
                self._stands = True
                _logger.warning("no worker is left, and the run waits for Ray to place one; %s", self._lack())
            elif placing and not stands and not self._noticed:
                self._noticed = True
                _logger.warning(
                    "%d of %d workers have not started yet; %s", len(placing), self._count, self._lack()
                )
            self._stands = self._stands and stands
        elif self._noticed:
            return
        elif placing and now > self._started + self._wait_seconds:
            self._noticed = True
            error = ConfigurationError(
                f"Ray has placed no worker within {self._wait_seconds:g} s; {self._lack()}",
                hint="give a cluster that has it, or change num_cpus, num_gpus, memory, resources or "
                "wait_seconds in the table [hooks.ray] of the config file",
            )
            for worker in placing:
                worker.refuse(error)
        elif placing and not self._told:
            self._told = True
            _logger.warning("Ray has placed no worker yet; %s", self._lack())

    def _lack(self) -> str:
        """Say what a worker requires, and what the cluster has."""
        wanted = shown(self._needs.by_name)
        try:
            has, free = shown(self._ray.cluster_resources()), shown(self._ray.available_resources())
        except Exception:  # the head is out of reach for now
            return f"each requires {wanted}; the cluster does not say what it has"
        return f"each requires {wanted}; the cluster has {has}, of which {free} is free"


def _actor_class(ray: Any) -> Any:
    """Return the class of actors, which nodes get by value."""
    ray.cloudpickle.register_pickle_by_value(actors)
    for group, methods in actors.METHODS.items():
        for name in methods:
            answers = 0 if name in actors.SILENT else 1
            ray.method(concurrency_group=group, num_returns=answers)(getattr(actors.RayActor, name))
    return ray.remote(concurrency_groups=dict.fromkeys(actors.METHODS, 1))(actors.RayActor)


def _nowhere(setup: Setup, deliver: Deliver) -> RayWorker:
    raise NotImplementedError
