"""Workers that are objects here and die, refuse, fall silent or answer late at any step: nothing is lost.

A seed decides what happens next, in one thread, so that every failure comes again. Where the run waits and no
worker has anything left to do, it would wait for ever: that is a failure at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from queue import Empty
from typing import Any, ClassVar

import pytest

from stillhouse import ConfigurationError, GenerationError, get_llm, prepare_output
from stillhouse._execution.stopping import Stop, stopping_with
from stillhouse.jobs.executors import Deliver, Died, Refused, Setup, WorkerHandle, Workers, packed, unpacked
from stillhouse.jobs.executors import session as sessions
from stillhouse.jobs.executors import workers as crews
from stillhouse.jobs.executors.messages import (
    Begin,
    Check,
    Checked,
    End,
    Ended,
    Inputs,
    Log,
    Quit,
    Ready,
    Results,
)
from stillhouse.jobs.executors.messages import Stop as StopMessage

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)

import worker_llms  # noqa: E402 - workers would import it by this name

sys.path.remove(HERE)

ATTEMPTS = 9
"""How many workers an input may take with it: the halves of what a worker had, and two more alone."""


class World:
    """Decides by a seed what happens next.

    Attributes:
        accidents: how many deaths are left that nothing causes.
    """

    def __init__(self, seed: int, *, accidents: int, fatal: set[int]) -> None:
        self.chance = random.Random(seed)
        self.accidents = accidents
        self.fatal = fatal
        self.puppets: list[Puppet] = []
        self.events: deque[tuple[int, Any]] = deque()
        self.delivered: set[Any] = set()
        self.attempts: Counter[Any] = Counter()
        self.can_start = True
        self.may_wait = False

    def happens(self, chance: float) -> bool:
        return self.chance.random() < chance

    def accident(self, chance: float) -> bool:
        if self.accidents and self.happens(chance):
            self.accidents -= 1
            return True
        return False

    def launch(self, setup: Setup, deliver: Deliver) -> WorkerHandle:
        if not self.can_start and self.accident(0.3):
            raise OSError(11, "no room for a process")
        puppet = Puppet(self, deliver)
        self.puppets.append(puppet)
        return puppet

    # The queue of the run: whoever waits lets the workers work

    def put(self, event: tuple[int, Any]) -> None:
        self.events.append(event)

    def get_nowait(self) -> tuple[int, Any]:
        return self.get(block=False)

    def get(self, block: bool = True, timeout: float | None = None) -> tuple[int, Any]:
        for _ in range(self.chance.randrange(3)):
            self.step()
        while block and not self.events:
            if not self.step():
                assert self.may_wait, "the run waits, and nothing will come"
                break
        if not self.events:
            raise Empty
        return self.events.popleft()

    def step(self) -> bool:
        able = [puppet for puppet in self.puppets if puppet.can_act]
        if able:
            self.chance.choice(able).act()
        return bool(able)

    @property
    def living(self) -> int:
        return sum(not puppet.is_dead for puppet in self.puppets)


class Puppet(WorkerHandle):
    """A worker."""

    def __init__(self, world: World, deliver: Deliver) -> None:
        self._world = world
        self._deliver = deliver
        self._inbox: deque[Any] = deque()
        self._held: dict[int, str] = {}
        self._is_ready = self._is_begun = self._is_ending = False
        self.is_dead = self.is_closed = False

    def send(self, message: Any) -> None:
        message = unpacked(packed(message))
        if not self.is_dead:
            self._inbox.append(message)

    def close(self, *, at_once: bool) -> None:
        self.is_closed = True
        if not self.is_dead:
            self._die("closed")

    @property
    def can_act(self) -> bool:
        return not self.is_dead and (
            not self._is_ready or bool(self._inbox or self._held) or (self._is_begun and self._is_ending)
        )

    def act(self) -> None:
        world = self._world
        if world.accident(0.05):
            self._die("an accident")
        elif not self._is_ready:
            if world.accident(0.1):
                self._deliver(Refused(ConfigurationError("this node has another version")))
                self._die("refused")
            else:
                self._is_ready = True
                self._deliver(Ready())
        elif self._inbox and (not self._held or world.happens(0.5)):
            self._take(self._inbox.popleft())
        elif self._held:
            self._generate()
        else:
            self._is_begun = self._is_ending = False
            self._deliver(Ended())

    def _take(self, message: Any) -> None:
        if isinstance(message, Begin):
            assert not self._is_begun, "an iteration begins while another one is open"
            self._is_begun = True
        elif isinstance(message, Inputs):
            assert self._is_begun or self._is_ending
            for position, input in message.items:
                text = worker_llms.text_of(input)
                assert text not in self._world.delivered, "a finished input is asked for again"
                self._held[position] = text
        elif isinstance(message, (End, StopMessage)):
            self._is_ending = True
            if isinstance(message, StopMessage):
                kept = self._world.chance.randrange(len(self._held) + 1)
                self._held = dict([*self._held.items()][:kept])
        elif isinstance(message, Check):
            self._deliver(Checked(None))
        else:
            assert isinstance(message, Quit)
            self._die("quit")

    def _generate(self) -> None:
        world = self._world
        position = world.chance.choice([*self._held])
        if number_of(self._held[position]) in world.fatal:
            self._die("a fatal input")
            return
        if world.happens(0.1):
            self._deliver(Log("stillhouse.test", 10, "noticed"))
        count = world.chance.randint(1, len(self._held))
        others = world.chance.sample([*self._held], count)
        finished = [
            (place, prepare_output([f"{self._held[place]}!"]), 0.0)
            for place in others
            if number_of(self._held[place]) not in world.fatal
        ]
        for place, _, _ in finished:
            world.delivered.add(self._held.pop(place))
        self._deliver(Results(finished))
        if world.happens(0.05):
            self._deliver(Results(finished))  # as after a message that was sent twice

    def _die(self, reason: str) -> None:
        self.is_dead = True
        unread = (item for message in self._inbox if isinstance(message, Inputs) for item in message.items)
        for text in (*self._held.values(), *(worker_llms.text_of(input) for _, input in unread)):
            self._world.attempts[text] += 1
        self._deliver(Died(reason))
        if self._world.happens(0.2):
            self._deliver(Died(reason))


def number_of(text: str) -> int:
    return int(text.split()[-1])


def chats(texts: Iterable[str]) -> Iterator[Any]:
    return ([{"role": "user", "content": text}] for text in texts)


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "AHEAD", 3)
    monkeypatch.setattr(crews, "CHUNK", 3)


@contextlib.contextmanager
def crew(world: World, count: int, **options: Any) -> Iterator[Workers]:
    llm = worker_llms.Fragile(max_concurrency=2 * count)
    workers = Workers(llm, count, world.launch, **options)
    workers._events = world  # type: ignore[assignment]
    with workers:
        world.can_start = False
        yield workers
    assert not world.living


@pytest.mark.parametrize("seed", range(150))
def test_each_input_has_one_result_whatever_happens_to_the_workers(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(1, 4)
    fatal = {*chance.sample(range(60), chance.choice([0, 0, 1, 3]))}
    world = World(seed, accidents=0, fatal=fatal)
    with crew(world, count) as workers:
        world.accidents = chance.choice([0, 5, 20])
        for iteration in range(chance.randint(1, 3)):
            texts = [f"{iteration} {number}" for number in range(chance.choice([0, 1, 7, 60]))]
            leaves = chance.randrange(len(texts) or 1) if chance.random() < 0.3 else None
            if not iterate(workers, texts, world, ordered=chance.random() < 0.5, leaves=leaves):
                break
            assert world.living <= count
    assert all(attempts <= ATTEMPTS for attempts in world.attempts.values())


def iterate(
    workers: Workers, texts: list[str], world: World, *, ordered: bool = True, leaves: int | None = None
) -> bool:
    """Check the results of one iteration, which may be left in the middle; return whether workers are left."""
    found: dict[int, Any] = {}
    problem = None
    with contextlib.closing(workers.iter_finished(chats(texts), on_error="yield", ordered=ordered)) as groups:
        try:
            for group in groups:
                for index, result, _ in group:
                    assert index not in found
                    assert not ordered or index == len(found)
                    found[index] = result
                if leaves is not None and len(found) > leaves:
                    break
        except GenerationError as error:
            problem = error
    if problem is not None:
        assert problem.stops_run
        assert "no worker is left" in problem.message
        return False
    if leaves is None:
        assert sorted(found) == [*range(len(texts))]
    for index, result in found.items():
        if isinstance(result, GenerationError):
            assert result.kind == "server"
            assert world.attempts[texts[index]] >= 2
        else:
            assert number_of(texts[index]) not in world.fatal
            assert result["generations"] == [f"{texts[index]}!"]
    return True


@pytest.mark.parametrize("seed", range(150))
def test_a_request_to_stop_ends_an_iteration_and_the_next_one_begins(seed: int) -> None:
    chance = random.Random(seed)
    world = World(seed, accidents=chance.choice([0, 4]), fatal=set())
    with (
        contextlib.suppress(GenerationError, ConfigurationError),
        crew(world, chance.randint(1, 3)) as workers,
    ):
        for iteration in range(2):
            texts = [f"{iteration} {number}" for number in range(80)]
            stop, found = Stop(), dict[int, Any]()
            ends = chance.randrange(60)
            with stopping_with(stop):
                for group in workers.iter_finished(chats(texts), ordered=False):
                    for index, result, _ in group:
                        assert index not in found
                        assert result["generations"] == [f"{texts[index]}!"]
                        found[index] = result
                    if len(found) > ends:
                        stop.request()
            assert {f"{iteration} {index}" for index in found} == {
                text for text in world.delivered if text.startswith(f"{iteration} ")
            }, "what was generated is kept"
        iterate(workers, [f"9 {number}" for number in range(20)], world)


@pytest.mark.parametrize("seed", range(20))
def test_workers_may_fail_to_begin_at_any_time(seed: int) -> None:
    """A run begins with enough of them, or not at all, and then says why."""
    chance = random.Random(seed)
    world = World(seed, accidents=chance.randint(1, 9), fatal=set())
    said = "another version"
    try:
        with crew(world, 3, enough=1) as workers:
            texts = [f"0 {number}" for number in range(40)]
            iterate(workers, texts, world)
    except (GenerationError, ConfigurationError) as error:
        said = error.message
    assert "a worker died while it loaded" in said or "another version" in said
    assert not world.living


def test_an_input_that_does_not_pickle_fails_alone() -> None:
    world = World(1, accidents=0, fatal=set())
    inputs = [*chats(f"0 {number}" for number in range(20))]
    inputs[7] = [{"role": "user", "content": threading.Lock()}]
    with crew(world, 2) as workers:
        groups = workers.iter_finished(inputs, on_error="yield")
        found = {index: result for group in groups for index, result, _ in group}
    assert isinstance(found[7], GenerationError)
    assert (found[7].kind, found[7].attempts) == ("invalid_input", 0)
    assert "cannot be sent to a worker: TypeError: cannot pickle" in found[7].message
    assert all(found[index]["generations"] for index in range(20) if index != 7)


@pytest.mark.parametrize(("count", "tries"), [(1, 2), (20, 3)])
def test_an_input_that_ends_its_workers_says_how_often_it_was_tried(count: int, tries: int) -> None:
    class Prompt(Puppet):
        def _generate(self) -> None:
            if any(number_of(text) in self._world.fatal for text in self._held.values()):
                self._die("a fatal input")
            else:
                super()._generate()

    world = World(1, accidents=0, fatal={0})
    with crew_of(world, Prompt) as workers:
        groups = workers.iter_finished(chats(f"0 {number}" for number in range(count)), on_error="yield")
        found = [result for group in groups for _, result, _ in group]
    assert f"the worker died {tries} times while generating for this row" in found[0].message
    assert found[0].attempts == tries


def test_a_worker_that_ends_early_is_an_error() -> None:
    """Else the run would wait for its inputs for ever."""

    class Idle(Puppet):
        def _generate(self) -> None:
            self._held.clear()
            self._is_ending = True

    world = World(1, accidents=0, fatal=set())
    with (
        crew_of(world, Idle) as workers,
        pytest.raises(GenerationError, match="a worker ended without a result for 1 row that it was given"),
    ):
        list(workers.iter_finished(chats(["0 1"])))


def crew_of(
    world: World, kind: Callable[[World, Deliver], Puppet]
) -> contextlib.AbstractContextManager[Workers]:
    def launch(setup: Setup, deliver: Deliver) -> WorkerHandle:
        world.puppets.append(kind(world, deliver))
        return world.puppets[-1]

    world.launch = launch  # type: ignore[method-assign]
    return crew(world, 1)


def test_a_worker_that_says_nothing_at_the_end_does_not_hold_up_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every row is finished. It may be stopped by a signal, or its backend may hang."""
    monkeypatch.setattr(sessions, "END_SECONDS", -1.0)

    class Silent(Puppet):
        @property
        def can_act(self) -> bool:
            return super().can_act and not self._is_ending

    world = World(1, accidents=0, fatal=set())
    world.may_wait = True
    texts = [f"0 {number}" for number in range(9)]
    with crew_of(world, Silent) as workers:
        iterate(workers, texts, world)
        iterate(workers, [f"1{text}" for text in texts], world)
        assert len(world.puppets) == 2  # it was replaced for the second iteration


def test_a_worker_that_never_falls_silent_does_not_hold_back_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "TAKE_SECONDS", 0.0)

    class Loud(Puppet):
        can_act = True

        def act(self) -> None:
            if self._is_ready and not self._inbox and not self._held and not self._is_ending:
                self._deliver(Log("stillhouse.test", 10, "and again"))
            else:
                super().act()

    world = World(1, accidents=0, fatal=set())
    with crew_of(world, Loud) as workers:
        groups = workers.iter_finished(chats(f"0 {number}" for number in range(1000)))
        assert next(groups)
        groups.close()


class Scripted:
    """Workers of which two are ready, and say what is written here."""

    capacity = chunk = 2
    ready: ClassVar[list[int]] = [0, 1]
    starting = 0

    def __init__(self, said: list[Callable[[], tuple[int, Any]]]) -> None:
        self._said = said
        self.sent: list[tuple[int, Any]] = []

    def send(self, worker: int, message: Any) -> None:
        self.sent.append((worker, message))

    def next_event(self, *, wait: bool) -> tuple[int, Any] | None:
        return self._said.pop(0)() if wait else None


def test_what_a_dead_worker_had_goes_to_nobody_after_a_stop() -> None:
    """Worker 1 is free when worker 0 dies, and would take its inputs."""
    stop = Stop()

    def died() -> tuple[int, Any]:
        stop.request()
        return 0, Died("killed")

    output = prepare_output(["an answer"])
    crew = Scripted(
        [
            lambda: (1, Results([(2, output, 0.1), (3, output, 0.1)])),
            died,
            lambda: (1, Ended(None)),
        ]
    )
    inputs = ["one", "two", "three", "four"]
    with stopping_with(stop):
        call = get_llm("echo")()._begin_elsewhere(inputs, 1, {})
        session = sessions.Session(crew, call, Begin(1, {}, False), ordered=False)  # type: ignore[arg-type]
        finished: list[Any] = []
        batches = session.batches(enumerate(inputs))
        with pytest.raises(asyncio.CancelledError):
            finished.extend(result for batch in batches for result in batch)
    assert [index for index, *_ in finished] == [2, 3]
    given = [[index for index, _ in message.items] for _, message in crew.sent if isinstance(message, Inputs)]
    assert given == [[0, 1], [2, 3]]
