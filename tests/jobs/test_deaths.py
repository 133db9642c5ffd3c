"""Worker processes that die: at any moment, and of too little memory. Nothing finished is generated again."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import GenerationError, hookimpl
from stillhouse.jobs.executors import Workers
from stillhouse.jobs.executors.processes import ProcessWorker

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)

import worker_llms  # noqa: E402 - workers import it by this name

COUNT = 200

WORKERS = 3

HELD = 2 * 4 + 32
"""How many rows one of three workers has at most, if twelve may be in flight."""

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no such signal")


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    yield
    sys.path.remove(HERE)


class Finished:
    """A hook that knows the rows that the run has results of."""

    def __init__(self) -> None:
        self.rows: set[str] = set()

    @hookimpl
    def after_generate(self, row: Any) -> None:
        self.rows.add(f"row {row.index}")


def test_a_worker_that_is_killed_costs_what_it_had(tmp_path: Path) -> None:
    killed_at_any_moment(tmp_path, 0)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(1, 11))
def test_workers_are_killed_at_any_moment(tmp_path: Path, number: int) -> None:
    killed_at_any_moment(tmp_path, number)


def killed_at_any_moment(folder: Path, seed: int) -> None:
    """Two workers are killed, each when any number of rows has been asked for."""
    generator, notes, finished = random.Random(seed), folder / "notes", Finished()
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"row {number}"}) + "\n" for number in range(COUNT)))
    one, output = folder / "one.jsonl", folder / "workers.jsonl"
    stillhouse.run(source, llm=worker_llms.Fragile(max_concurrency=12), output=one, show_bar=False)
    llm, registry = (
        worker_llms.Fragile(notes=notes, pause=0.02, max_concurrency=12),
        stillhouse.registry.Registry(),
    )
    registry.register_hooks("finished", finished)
    llm.use_registry(registry)
    errors: list[BaseException] = []

    def generate() -> None:
        try:
            stillhouse.run(
                source, llm=llm, output=output, executor="processes", workers=WORKERS, show_bar=False
            )
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=generate)
    thread.start()
    dead: set[int] = set()
    seen: list[tuple[set[str], int]] = []
    for moment in sorted(generator.sample(range(COUNT), 2)):
        until(lambda: len(asked(notes)) > moment or errors)  # noqa: B023
        assert not errors, errors
        seen.append((set(finished.rows), len(asked(notes))))
        left = {process for process, _ in asked(notes)} - dead
        victim = generator.choice(sorted(left))
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            break  # the run has ended
        dead.add(victim)
        until(lambda: not lives(victim))  # noqa: B023
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not errors, errors
    assert output.read_bytes() == one.read_bytes()
    found = asked(notes)
    for done, before in seen:
        assert not done & {text for _, text in found[before:]}
    processes: dict[str, list[int]] = {}
    for process, text in found:
        processes.setdefault(text, []).append(process)
    assert {process for several in processes.values() for process in several[:-1]} <= dead
    assert len(found) <= COUNT + 2 * HELD


PATIENCE = 120.0


def until(holds: Callable[[], Any]) -> None:
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends, "it has not happened"
        time.sleep(0.01)


def asked(notes: Path) -> list[tuple[int, str]]:
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [(int(process), text) for process, text in (line.split(" ", 1) for line in lines)]


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def results_of(llm: Any, contents: list[Any]) -> dict[int, Any]:
    with Workers(llm, 2, ProcessWorker) as workers:
        chats = [[{"role": "user", "content": content}] for content in contents]
        groups = workers.iter_finished(chats, on_error="yield")
        return {index: result for group in groups for index, result, _ in group}


def the_others_are_done(found: dict[int, Any], contents: list[Any], bad: int) -> GenerationError:
    assert len(found) == len(contents)
    error = found.pop(bad)
    assert isinstance(error, GenerationError)
    assert [result["generations"] for result in found.values()] == [
        [f"{content}!"] for number, content in enumerate(contents) if number != bad
    ]
    return error


ROWS: list[Any] = [f"row {number}" for number in range(4)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is set as on Linux")
def test_a_row_that_takes_more_memory_than_there_is_fails_alone() -> None:
    """As under `ulimit -v`."""
    contents = [*ROWS[:2], "hog", *ROWS[3:]]
    error = the_others_are_done(results_of(worker_llms.Fragile(room=2**28), contents), contents, 2)
    assert "emory" in error.message


def test_a_row_whose_worker_the_system_kills_says_that_memory_may_have_run_out() -> None:
    contents = [*ROWS[:2], "kill", *ROWS[3:]]
    error = the_others_are_done(results_of(worker_llms.Fragile(), contents), contents, 2)
    assert "the worker died 3 times" in error.message
    assert "killed by SIGKILL, as the system does when memory runs out" in error.message


@pytest.mark.parametrize(
    ("llm", "content"),
    [(worker_llms.Fragile(), worker_llms.Large()), (worker_llms.Starved(), "starve")],
    ids=["reads", "takes"],
)
def test_a_worker_without_memory_for_anything_else_costs_one_row(llm: Any, content: Any) -> None:
    """Else an error of the worker would end the run."""
    contents = [*ROWS[:2], content, *ROWS[3:]]
    error = the_others_are_done(results_of(llm, contents), contents, 2)
    assert error.kind == "server"
    assert error.message.startswith("the worker died 3 times")
    assert error.message.endswith(": it ran out of memory")
