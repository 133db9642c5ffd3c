"""How workers are placed, refused and lost, with what stands for a cluster."""

from __future__ import annotations

import pickle
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError
from stillhouse.jobs.executors import Died, Ended, Refused, Setup, packed
from stillhouse_ray import executor as executors
from stillhouse_ray.connection import Connected
from stillhouse_ray.executor import GATHER_SECONDS, NOTICE_SECONDS, _Crew
from stillhouse_ray.head import HeadWatch
from stillhouse_ray.hub import Hub
from stillhouse_ray.needs import Needs
from stillhouse_ray.settings import RaySettings
from stillhouse_ray.worker import RayWorker

sys.path.insert(0, str(Path(__file__).parent))

from ray_llms import Fragile

KEY = "sk-a-key-of-this-process"


class Method:
    """A method of an actor, which is never called."""

    def __init__(self, calls: list[tuple[str, tuple[Any, ...]]], name: str) -> None:
        self._calls = calls
        self._name = name

    def remote(self, *arguments: Any) -> object:
        self._calls.append((self._name, arguments))
        return object()


class Actor:
    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Method:
        return Method(self.calls, name)

    @property
    def called(self) -> list[str]:
        return [name for name, _ in self.calls]


class Cluster:
    """Stands for the module `ray`, connected to a cluster with room for some workers."""

    def __init__(self, room: int) -> None:
        self.actors: list[Actor] = []
        self.killed: list[Actor] = []
        self.given: list[Any] = []
        self.groups: dict[str, int] = {}
        self.room = room
        self.cloudpickle = SimpleNamespace(register_pickle_by_value=lambda _: None)

    def method(self, **_: Any) -> Callable[[Any], Any]:
        return lambda function: function

    def remote(self, *, concurrency_groups: dict[str, int]) -> Callable[[type], Any]:
        self.groups = concurrency_groups
        return lambda _: self

    def options(self, **options: Any) -> Any:
        self.given.append(options)

        def place(*arguments: Any, **named: Any) -> Actor:
            self.given.append((arguments, named))
            self.actors.append(Actor())
            return self.actors[-1]

        return SimpleNamespace(remote=place)

    def kill(self, actor: Actor, *, no_restart: bool) -> None:
        assert no_restart
        self.killed.append(actor)

    def available_resources(self) -> dict[str, float]:
        return {"CPU": float(self.room), "disk": 2.0 * self.room}

    cluster_resources = available_resources


class Placing:
    """Workers that are placed, by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int, room: int) -> None:
        self.now = 1000.0
        monkeypatch.setattr(executors, "monotonic", lambda: self.now)
        monkeypatch.setattr("stillhouse_ray.worker.monotonic", lambda: self.now)
        monkeypatch.setattr(executors, "versions_for", lambda _: {"stillhouse": "1.0"})
        monkeypatch.setenv("OTHER_KEY", KEY)
        self.cluster = Cluster(room)
        settings = RaySettings(environment=["OTHER_KEY"])
        connection = Connected(self.cluster, "head:6379")
        self.crew = _Crew(connection, Fragile(), count, Needs(resources={"disk": 2}), settings)
        self.said: list[list[Any]] = [[] for _ in range(count)]
        setup = Setup(pickle.dumps(Fragile()) + KEY.encode())
        self.workers: list[Any] = [self.crew.launch(setup, said.append) for said in self.said]

    def place(self, number: int, **other: Any) -> None:
        about = {
            "python": sys.version.split()[0],
            "executable": "python",
            "node": "node-7",
            "process": number,
            "versions": {"stillhouse": "1.0"},
            **other,
        }
        worker = self.workers[number]
        assert isinstance(worker, RayWorker)
        self.crew._met(worker, about)

    def begun(self) -> list[bool]:
        self.crew._tick()
        return ["begin" in actor.called for actor in self.cluster.actors]


def test_those_that_have_room_begin_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """So one that cannot work for this process is refused before the first row."""
    placing = Placing(monkeypatch, count=3, room=2)
    placing.place(0)
    assert placing.begun() == [False, False, False]
    placing.place(1)
    assert placing.begun() == [True, True, False]
    placing.place(2)
    assert placing.begun() == [True, True, True]


def test_one_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    placing = Placing(monkeypatch, count=2, room=2)
    placing.place(1)
    assert placing.begun() == [False, False]
    placing.now += GATHER_SECONDS
    assert placing.begun() == [False, True]


def test_a_worker_with_another_version_is_refused_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    placing = Placing(monkeypatch, count=2, room=2)
    placing.place(0, versions={"stillhouse": "0.9"})
    refused, died = placing.said[0]
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, ConfigurationError)
    assert isinstance(died, Died)
    assert placing.cluster.killed == placing.cluster.actors[:1]
    assert "begin" not in placing.cluster.actors[0].called


def test_a_worker_that_cannot_be_heard_is_killed_and_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may only be out of reach: then it would generate for rows that others have."""
    placing = Placing(monkeypatch, count=1, room=1)
    placing.place(0)
    placing.begun()
    for _ in range(2):
        placing.workers[0]._heard(None, RuntimeError("it is unavailable"))
    (died,) = placing.said[0]
    assert isinstance(died, Died)
    assert placing.cluster.killed == placing.cluster.actors


def test_an_actor_does_not_outlive_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    placing = Placing(monkeypatch, count=1, room=1)
    placing.place(0)
    placing.begun()
    worker = placing.workers[0]
    monkeypatch.setattr("stillhouse_ray.worker.wait", lambda *_: None)
    worker.close(at_once=False)
    assert placing.cluster.killed == placing.cluster.actors
    assert "interrupt" not in placing.cluster.actors[0].called


def test_the_end_of_a_worker_does_not_wait_for_a_head_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray waits for the head to kill an actor, and the run may end before anybody notices that it is gone."""
    placing = Placing(monkeypatch, count=1, room=1)
    placing.place(0)
    placing.begun()
    worker = placing.workers[0]
    worker._die("its node has died")
    waits, comes_back = threading.Event(), threading.Event()

    def kill(actor: Actor, *, no_restart: bool) -> None:
        waits.set()
        comes_back.wait()

    monkeypatch.setattr(placing.cluster, "kill", kill)
    closing = threading.Thread(target=worker.close, kwargs={"at_once": True}, daemon=True)
    closing.start()
    assert waits.wait(60)
    placing.crew.lose("the head is gone")
    closing.join(30)
    is_closed = not closing.is_alive()
    comes_back.set()
    assert is_closed


def test_what_a_worker_says_is_delivered_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    placing = Placing(monkeypatch, count=1, room=1)
    placing.place(0)
    placing.begun()
    messages = [f"message {number}" for number in range(5)]
    placing.workers[0]._heard([*map(packed, messages[:3])], None)
    placing.workers[0]._heard([*map(packed, messages[3:])], None)
    assert placing.said[0] == messages


def test_no_record_of_an_actor_has_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray keeps what an actor is created with, and its options; arguments of its methods it does not."""
    placing = Placing(monkeypatch, count=1, room=1)
    placing.place(0)
    placing.begun()
    assert KEY not in repr(placing.cluster.given)
    assert placing.cluster.given[0] == {
        "max_restarts": 0,
        "num_cpus": 1,
        "num_gpus": 0,
        "resources": {"disk": 2},
    }
    assert placing.cluster.given[1:] == [((), {})]
    (given,) = (arguments for name, arguments in placing.cluster.actors[0].calls if name == "begin")
    assert given[1] == {"OTHER_KEY": KEY}


def test_messages_have_one_thread_and_so_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    placing = Placing(monkeypatch, count=1, room=1)
    assert placing.cluster.groups == {"in": 1, "out": 1}


def test_what_is_sent_before_a_worker_begins_arrives_after_that(monkeypatch: pytest.MonkeyPatch) -> None:
    placing = Placing(monkeypatch, count=1, room=1)
    placing.workers[0].send("early")
    placing.place(0)
    placing.begun()
    placing.workers[0].send("late")
    calls = [
        (name, arguments) for name, arguments in placing.cluster.actors[0].calls if name in ("begin", "take")
    ]
    assert [name for name, _ in calls] == ["begin", "take", "take"]
    assert [pickle.loads(arguments[0]) for _, arguments in calls[1:]] == ["early", "late"]


def test_who_waits_is_said_again_when_no_worker_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    placing = Placing(monkeypatch, count=2, room=1)
    placing.place(0)
    placing.now += NOTICE_SECONDS + 1
    for _ in range(3):
        placing.crew._tick()
    placing.workers[0]._die("it was killed")
    for _ in range(3):
        placing.crew._tick()
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(";")[0] for text in said] == [
        "1 of 2 workers have not started yet",
        "no worker is left, and the run waits for Ray to place one",
    ]


def test_without_the_head_every_worker_ends_with_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is asked for nothing more that may wait for the head."""
    placing = Placing(monkeypatch, count=3, room=2)
    placing.place(0)
    placing.place(1)
    placing.begun()
    placing.crew.lose("the head is gone")
    for said in placing.said:
        ended, died = said
        assert isinstance(ended, Ended)
        assert isinstance(ended.error, GenerationError)
        assert ended.error.stops_run
        assert ended.error.message == "the head is gone"
        assert "run the same command again" in ended.error.hint
        assert isinstance(died, Died)
    assert ["interrupt" in actor.called for actor in placing.cluster.actors] == [True, True, False]
    later: list[Any] = []
    placing.crew.launch(Setup(b""), later.append)
    assert [type(message) for message in later] == [Ended, Died]
    assert len(placing.cluster.actors) == 3
    for worker in placing.workers:
        worker.send("lost")
        worker.close(at_once=False)
    assert not placing.cluster.killed
    assert "take" not in placing.cluster.actors[0].called


def test_a_connection_that_breaks_is_said() -> None:
    """As with Ray Client, whose server may die by itself: else nobody would wait for an answer any more."""

    def wait(*_: Any, **__: Any) -> Any:
        raise ConnectionError("the client is not connected")

    broken: SimpleQueue[Exception] = SimpleQueue()
    hub = Hub(SimpleNamespace(wait=wait), lambda: None, broken.put)
    hub.ask(object(), lambda *_: None)
    hub.start()
    try:
        assert str(broken.get(timeout=60)) == "the client is not connected"
    finally:
        hub.close()


def test_a_head_is_lost_when_it_has_not_answered_for_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([True, True, False, True, False])
    lost = threading.Event()
    watch = HeadWatch("head:6379", 0.05, lost.set)
    monkeypatch.setattr(watch, "_answers", lambda: next(answers, False))
    with watch:
        assert lost.wait(60)
    assert next(answers, None) is None


def test_a_head_that_answers_is_not_lost() -> None:
    with socket.socket() as head:
        head.bind(("127.0.0.1", 0))
        head.listen()
        watch = HeadWatch(f"127.0.0.1:{head.getsockname()[1]}", 60, lambda: None)
        assert watch._answers()
    assert not watch._answers()
