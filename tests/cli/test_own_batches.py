"""`--batch` with an engine on this machine: all rows at once, in its order, with the results of a run without."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import stillhouse
from stillhouse import AsyncLLM, FormattedInput, GenerateOutput, GenerationError, prepare_output
from stillhouse.jobs.runs import ordered

from ..support import squeezed

WORDS = ["pear", "fig", "clementine", "kiwi", "apple", "quince", "fig", "plum"]


class EngineLLM(AsyncLLM):
    """An engine that is fastest with inputs of like lengths, and keeps what it was asked for."""

    asked: ClassVar[list[tuple[str, int, int | None]]] = []
    failing: ClassVar[dict[str, int]] = {}

    model: str = "m"

    @property
    def model_name(self) -> str:
        return self.model

    def batch_key(self, input: FormattedInput) -> int | str | None:
        text = input[-1]["content"]  # type: ignore[index, typeddict-item]
        if text == "plum":
            raise ValueError("no key")
        return len(text)  # type: ignore[arg-type]

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        seed: int | None = None,
    ) -> GenerateOutput:
        text: Any = input[-1]["content"]  # type: ignore[index, typeddict-item]
        self.asked.append((text, num_generations, seed))
        made = self.failing.get(text, num_generations)
        texts = [f"{text}!{(seed or 0) + number}" for number in range(made)]
        output = prepare_output(texts, [3], [2] * made)
        if made < num_generations:
            raise GenerationError("broken", kind="server", outputs=[output])
        return output


class PrefixLLM(EngineLLM):
    """One that computes common beginnings once."""

    def batch_key(self, input: FormattedInput) -> int | str | None:
        return str(input[-1]["content"])  # type: ignore[index, typeddict-item]


class Runs:
    """Runs of the same rows with different options."""

    def __init__(self, run: Any, source: Path) -> None:
        self._run = run
        self.source = source

    def __call__(self, name: str, *options: object, llm: str = "engine") -> Any:
        output = self.source.parent / name
        EngineLLM.asked.clear()
        return self._run(
            "generate", self.source, "--llm", llm, "-o", output, "--max-concurrency", 1, *options
        )

    def content(self, name: str) -> bytes:
        return (self.source.parent / name).read_bytes()


@pytest.fixture
def runs(run: Any, rows_file: Any, own_registry: stillhouse.Registry) -> Runs:
    EngineLLM.failing.clear()
    own_registry.register("engine", EngineLLM)
    own_registry.register("prefix", PrefixLLM)
    rows: list[Any] = [{"id": place, "prompt": word} for place, word in enumerate(WORDS)]
    return Runs(run, rows_file([*rows[:3], "{broken", *rows[3:], {"text": "no prompt"}]))


def asked() -> list[str]:
    return [text for text, _, _ in EngineLLM.asked]


@pytest.mark.parametrize(
    ("llm", "in_order"),
    [
        ("engine", ["plum", *sorted(WORDS[:-1], key=len)]),  # what has no key comes first
        ("prefix", sorted(WORDS)),
    ],
)
def test_rows_are_taken_in_the_engine_s_order_and_written_in_theirs(
    runs: Runs, llm: str, in_order: list[str]
) -> None:
    assert runs("online.jsonl", llm=llm).status == 3
    assert asked() == WORDS
    batch = runs("batch.jsonl", "--batch", llm=llm)
    assert batch.status == 3
    assert asked() == in_order
    assert "failed: invalid_input 2" in squeezed(batch.err)
    assert runs.content("batch.jsonl") == runs.content("online.jsonl")


def test_the_field_does_as_the_option(runs: Runs) -> None:
    fields = ["--set", "use_offline_batch_generation=true"]
    more = ["--set", "offline_batch_generation_block_until_done=5"]
    assert runs("batch.jsonl", *fields, *more).status == 3
    assert asked() == ["plum", *sorted(WORDS[:-1], key=len)]


@pytest.mark.parametrize("order", [("", "--batch"), ("--batch", "")])
def test_a_run_may_go_on_the_other_way(runs: Runs, order: tuple[str, str]) -> None:
    runs("calm.jsonl")
    first, second = ([option] if option else [] for option in order)
    assert runs("out.jsonl", *first, "--limit", 4).status == 3
    begun = asked()
    assert sorted(begun) == sorted(WORDS[:3])
    result = runs("out.jsonl", *second)
    assert "resuming: 4 rows finished" in result.err
    assert sorted(begun + asked()) == sorted(WORDS)
    assert runs.content("out.jsonl") == runs.content("calm.jsonl")


def test_failed_rows_are_tried_again_for_what_they_lack(runs: Runs) -> None:
    options = ["-n", 3, "--param", "seed=10", "--batch"]
    runs("calm.jsonl", *options)
    EngineLLM.failing.update({"fig": 1, "clementine": 2, "kiwi": 0})
    runs("out.jsonl", *options)
    EngineLLM.failing.clear()
    result = runs("out.jsonl", *options, "--retry", "server")
    assert "retrying 4 failed rows" in result.err
    # Those that lack the same number are taken together, each group in the engine's order.
    assert EngineLLM.asked == [
        ("kiwi", 3, 10), ("fig", 2, 11), ("fig", 2, 11), ("clementine", 1, 12),
    ]  # fmt: skip
    kept = [
        [json.loads(line)["generations"] for line in runs.content(name).splitlines()]
        for name in ("out.jsonl", "calm.jsonl")
    ]
    assert kept[0] == kept[1]


def test_a_ceiling_holds_and_a_higher_one_goes_on(runs: Runs) -> None:
    options = ["--batch", "--param", "max_new_tokens=2"]
    result = runs("out.jsonl", *options, "--max-tokens-total", 130)
    assert result.status == 1
    assert "the budget is used up" in result.err
    begun = asked()
    assert begun == ["plum", "fig", "fig"]
    assert runs("out.jsonl", *options, "--max-tokens-total", 1000).status == 3
    assert sorted(begun + asked()) == sorted(WORDS)
    runs("online.jsonl", "--param", "max_new_tokens=2")
    assert runs.content("out.jsonl") == runs.content("online.jsonl")


def test_an_estimate_is_that_of_a_run_without(runs: Runs) -> None:
    options = ["--param", "max_new_tokens=2", "--estimate"]
    assert runs("out.jsonl", *options, "--batch").out == runs("out.jsonl", *options).out


@pytest.mark.parametrize("options", [["--batch", "--wait"], ["--wait", "5"], ["--finish-online"]])
def test_there_is_nothing_to_wait_for(runs: Runs, options: list[str]) -> None:
    result = runs("out.jsonl", *options)
    assert result.status == 2
    assert "engine generates on this machine: it has no batch to wait for" in result.err
    assert asked() == []


def test_its_batches_are_none(runs: Runs, run: Any, tmp_path: Path) -> None:
    runs("out.jsonl", "--batch")
    for options in ([], ["--refresh"], ["--cancel"]):
        result = run("batches", tmp_path / "out.jsonl", *options)
        assert (result.status, result.err) == (0, "")
        assert "generates on this machine, so there is nothing to wait for" in result.out
    assert json.loads(run("batches", tmp_path / "out.jsonl", "--json").out) == []
    runs("online.jsonl")
    assert run("batches", tmp_path / "online.jsonl").out == "there are no offline batches in this run\n"


def test_a_full_disk_for_temporary_files_loses_nothing(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs("calm.jsonl")
    with runs.source.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({"prompt": "x" * 2000 + str(number)}) + "\n" for number in range(2000))
    runs("out.jsonl", "--batch", "--limit", 10)
    with monkeypatch.context() as patch:
        patch.setattr(ordered, "_SCHEMA", f"{ordered._SCHEMA}PRAGMA max_page_count = 50;")
        result = runs("out.jsonl", "--batch")
    assert result.status == 1
    assert (
        "the disk for temporary files, where the inputs are put in the engine's order, is full" in result.err
    )
    assert "10 finished rows are saved in" in result.err
    assert asked() == []
    runs("out.jsonl", "--batch")
    assert len(asked()) == 2000
    assert runs.content("out.jsonl").startswith(runs.content("calm.jsonl"))


def test_what_is_in_flight_when_the_temporary_files_fail_is_kept(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking(rows: ordered.Ordered, database: sqlite3.Connection) -> Iterator[ordered.Wanted]:
        for place, wanted in enumerate(in_order(rows, database)):
            if place == 5:
                raise sqlite3.OperationalError("disk I/O error")
            yield wanted

    in_order = ordered.Ordered._sorted
    with monkeypatch.context() as patch:
        patch.setattr(ordered.Ordered, "_sorted", breaking)
        result = runs("out.jsonl", "--batch", "--max-concurrency", 8)
    assert result.status == 1
    assert "cannot be used: disk I/O error" in result.err
    assert "7 finished rows are saved in" in result.err
    assert len(asked()) == 5
    runs("out.jsonl", "--batch")
    assert len(asked()) == len(WORDS) - 5


def test_a_key_that_is_none_stops_the_run(
    runs: Runs, own_registry: stillhouse.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineLLM, "batch_key", lambda llm, item: 0.5)
    result = runs("out.jsonl", "--batch")
    assert result.status == 1
    assert "batch_key returned a float" in result.err
    assert asked() == []


PROGRAM = textwrap.dedent("""
    import asyncio, os, resource, sys
    import stillhouse, stillhouse.registry
    from stillhouse import AsyncLLM, prepare_output

    class EngineLLM(AsyncLLM):
        model_name = property(lambda llm: "m")
        def batch_key(self, input):
            return len(input[-1]["content"])

        async def agenerate(self, input, num_generations: int = 1):
            text = input[-1]["content"]
            os.write(3, f"{len(text)}\\n".encode())
            await asyncio.sleep(float(os.environ.get("PAUSE", 0)))
            return prepare_output([str(len(text))], [3], [2])

    stillhouse.registry.default_registry().register("engine", EngineLLM)
    from stillhouse.cli.app import app
    try:
        app(sys.argv[1:], prog_name="stillhouse")
    finally:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
""")


class Child:
    """A run in a process of its own, whose calls are read as they are made."""

    def __init__(self, folder: Path, *options: object, pause: float = 0) -> None:
        read, write = os.pipe()
        arguments = ["generate", "rows.jsonl", "--llm", "engine", "-o", "out.jsonl", "--batch", *options]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec 3>&{write}; exec "$@"', "bash", sys.executable, "-c", PROGRAM]
            + [str(argument) for argument in arguments],
            cwd=folder, env={**os.environ, "PAUSE": str(pause)}, pass_fds=[write], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(write)
        self.calls = os.fdopen(read)

    def read(self, count: int) -> list[int]:
        return [int(self.calls.readline()) for _ in range(count)]

    def finish(self) -> tuple[int, list[int], str, str]:
        """The status, the calls that were not read yet, and what was printed."""
        lengths = [int(line) for line in self.calls]
        out, err = self.process.communicate()
        self.calls.close()
        return self.process.returncode, lengths, out, err


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="descriptors are handed on")


def write_lengths(path: Path, lengths: list[int]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"prompt": "x" * length}) + "\n" for length in lengths)


@needs_fork
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_run_that_is_ended_goes_on_and_equals_an_undisturbed_one(tmp_path: Path, name: str) -> None:
    lengths = [(number * 7919) % 401 + 1 for number in range(400)]
    write_lengths(tmp_path / "rows.jsonl", lengths)
    child = Child(tmp_path, "--max-concurrency", 4, pause=0.01)
    begun = child.read(100)
    assert begun == sorted(lengths)[:100]
    child.process.send_signal(getattr(signal, name))
    status, more, _, err = child.finish()
    assert status == (-signal.SIGKILL if name == "SIGKILL" else 130), err
    assert not (tmp_path / "out.jsonl").exists()
    status, rest, _, err = Child(tmp_path, "--max-concurrency", 1).finish()
    assert status == 0, err
    assert rest == sorted(lengths)[-len(rest) :]
    again = len(begun) + len(more) + len(rest) - len(lengths)
    # Killed, it loses what was in flight or on its way into the state.
    assert again == 0 if name == "SIGINT" else 0 <= again <= 100
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["generations"] for row in written] == [[str(length)] for length in lengths]


@needs_fork
@pytest.mark.parametrize("count", [20_000, pytest.param(200_000, marks=pytest.mark.soak)])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, count: int) -> None:
    def peak(count: int) -> int:
        lengths = [(number * 7919) % 2000 + 1 for number in range(count)]
        write_lengths(tmp_path / "rows.jsonl", lengths)
        status, called, out, err = Child(tmp_path, "--restart").finish()
        assert status == 0, err
        assert len(called) == count
        return int(out)

    small = peak(1000)
    assert peak(count) - small < 25
