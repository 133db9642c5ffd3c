"""`--dedupe`: rows of a run that ask for the same are generated for once, and each of them gets the result."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse.jobs.selection.repeats import find_repeats
from stillhouse.protocols import Row

from ..support import squeezed
from .conftest import Server, read_jsonl


@pytest.fixture
def write(tmp_path: Path) -> Callable[[list[Any]], Path]:
    def call(prompts: list[Any], name: str = "in.jsonl") -> Path:
        path = tmp_path / name
        rows = (
            {"id": number, **(prompt if isinstance(prompt, dict) else {"prompt": prompt})}
            for number, prompt in enumerate(prompts)
        )
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return path

    return call


def without_statistics(path: Path) -> list[dict[str, Any]]:
    return [{**row, "statistics": None} for row in read_jsonl(path)]


WORDS = ["a", "b", "a", "c", "b", "a", "d"]


def test_equal_rows_are_asked_for_once_and_each_gets_the_result(
    start: Any, server: Server, write: Any, tmp_path: Path
) -> None:
    source, output, plain = write(WORDS), tmp_path / "out.jsonl", tmp_path / "plain.jsonl"
    process = start(source, "-o", output, "--dedupe", "-n", 2)
    assert process.wait() == 0, process.err
    assert sorted(server.asked) == ["a", "b", "c", "d"]
    assert "equal to an earlier row 3, not paid again" in squeezed(process.err)
    assert "rows 7" in squeezed(process.err)
    assert start(source, "-o", plain, "-n", 2).wait() == 0
    assert without_statistics(output) == without_statistics(plain)
    rows = read_jsonl(output)
    assert [row["statistics"].get("duplicate_of") for row in rows] == [None, None, [1], None, [2], [1], None]
    assert [row["statistics"].get("input_tokens") for row in rows if "duplicate_of" not in row["statistics"]]
    assert len(server.asked) == 4 + 7


def test_rows_with_parameters_of_their_own_are_equal_if_these_are(write: Any) -> None:
    own = [{"prompt": "a b", "max_new_tokens": number} for number in (1, 2, 1)]
    run = stillhouse.run(write([*own, "a b"]), llm="echo", row_params=True, dedupe=True)
    assert [row["generations"] for row in run] == [["a"], ["a b"], ["a"], ["a b"]]
    assert [row["statistics"].get("duplicate_of") for row in run] == [None, None, [1], None]


def test_what_it_took_is_counted_once(start: Any, write: Any, tmp_path: Path) -> None:
    source, output = write(WORDS), tmp_path / "out.jsonl"
    process = start(source, "-o", output, "--dedupe")
    assert process.wait() == 0
    assert "input tokens 12\n" in squeezed(process.err)
    assert "output tokens 8\n" in squeezed(process.err)
    run = stillhouse.run(write(WORDS, "more.jsonl"), llm="echo", dedupe=True)
    undoubled = stillhouse.run(write(["a", "b", "c", "d"], "once.jsonl"), llm="echo")
    assert (run.counts.rows, run.counts.done) == (7, 7)
    assert run.tokens == undoubled.tokens
    assert sum(sum(row["statistics"].get("output_tokens", [])) for row in run) == run.tokens.output


def test_a_run_goes_on_and_the_same_command_asks_for_nothing(
    start: Any, server: Server, write: Any, tmp_path: Path
) -> None:
    source, output = write(WORDS), tmp_path / "out.jsonl"
    for limit, asked in ((3, 2), (3, 2), (5, 3), (None, 4), (None, 4)):
        options = [] if limit is None else ["--limit", limit]
        process = start(source, "-o", output, "--dedupe", *options)
        assert process.wait() == 0, process.err
        assert len(server.asked) == asked
        assert len(read_jsonl(output)) == (limit or 7)
    assert "is complete: 7 rows" in process.err


def test_where_the_first_one_fails_all_do_and_a_retry_asks_once(
    start: Any, server: Server, write: Any, tmp_path: Path
) -> None:
    source, output = write(WORDS), tmp_path / "out.jsonl"
    server.fails = lambda body: {"a": 1, "c": 0}.get(body["prompt"])
    process = start(source, "-o", output, "--dedupe", "-n", 3)
    assert process.wait() == 3, process.err
    assert "failed: server 4" in squeezed(process.err)
    rows = read_jsonl(output)
    assert [row["error"] and row["error"]["kind"] for row in rows] == [
        "server", None, "server", "server", None, "server", None,
    ]  # fmt: skip
    assert rows[0]["generations"] == rows[2]["generations"] == rows[5]["generations"] == ["a!0"]
    before = len(server.asked)
    server.fails = lambda _: None
    process = start(source, "-o", output, "--dedupe", "-n", 3, "--retry", "server")
    assert process.wait() == 0, process.err
    assert "retrying 4 failed rows" in process.err
    assert "did not read" not in process.err
    assert sorted(server.asked[before:]) == ["a", "c"]
    assert [body["n"] for body in server.bodies[before:] if body["prompt"] == "a"] == [2]
    rows = read_jsonl(output)
    assert all(row["error"] is None for row in rows)
    assert rows[0]["generations"] == rows[2]["generations"] == rows[5]["generations"]
    assert len(rows[0]["generations"]) == 3
    assert rows[5]["statistics"] == {"duplicate_of": [1]}


def test_only_what_is_sent_counts(start: Any, server: Server, write: Any, tmp_path: Path) -> None:
    """Columns that are not sent may differ; a character that cannot be seen may not."""
    rows = [
        {"prompt": "same", "note": 1},
        {"prompt": "same", "note": 2},
        {"prompt": "x\0a"},
        {"prompt": "x\0b"},
        {"prompt": "x"},
        {"prompt": "x "},
        {"prompt": "X"},
        {"messages": [{"role": "user", "content": "same"}]},
        {"messages": [{"content": "same", "role": "user"}]},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "same"}]},
        {"prompt": "é"},
        {"prompt": "e\u0301"},
        {"prompt": "\ud800"},
        {"prompt": None},
        {"prompt": None},
    ]
    process = start(write(rows), "-o", tmp_path / "out.jsonl", "--dedupe")
    assert process.wait() == 3, process.err
    found = read_jsonl(tmp_path / "out.jsonl")
    repeated = {row["id"]: (row["statistics"] or {}).get("duplicate_of") for row in found}
    assert {id: of for id, of in repeated.items() if of} == {1: [1], 7: [1], 8: [1]}
    assert [row["note"] for row in found[:2]] == [1, 2]
    assert [row["error"]["message"][:6] for row in found[-2:]] == ["line 1", "line 1"]
    assert len({row["error"]["message"] for row in found[-2:]}) == 2


def test_structured_outputs_of_their_own_are_told_apart() -> None:
    form = {"format": "regex", "schema": "a+"}
    chat = [{"role": "user", "content": "x"}]
    inputs: list[Any] = [
        chat,
        (chat, None),
        (chat, form),
        (chat, {**form, "schema": "b+"}),
        (chat, dict(form)),
        "x",
    ]
    rows = [Row(index, index + 1, digest=index) for index in range(len(inputs))]
    repeats = find_repeats(rows, lambda row: inputs[row.index])
    assert [(repeat.row, repeat.first) for repeat in repeats] == [(4, 2)]


def test_random_repeats_give_what_a_run_without_gives(tmp_path: Path, write: Any) -> None:
    chance = random.Random(3)
    for round in range(8):
        words = [f"word {chance.randrange(1, 12)}" for _ in range(chance.randrange(0, 40))]
        source = write(words, f"{round}.jsonl")
        plain, once = tmp_path / f"{round}.plain.jsonl", tmp_path / f"{round}.once.jsonl"
        options: dict[str, Any] = {"num_generations": chance.randrange(1, 3)}
        if chance.random() < 0.5:
            options["limit"] = chance.randrange(1, 30)
        stillhouse.run(source, llm="echo", output=plain, **options)
        run = stillhouse.run(source, llm="echo", output=once, dedupe=True, **options)
        assert without_statistics(once) == without_statistics(plain)
        repeated = [row for row in run if "duplicate_of" in row["statistics"]]
        assert len(run) - len(repeated) == len({row["prompt"] for row in run})
        for row in repeated:
            assert words[row["statistics"]["duplicate_of"][0] - 1] == row["prompt"]


class Watcher:
    def __init__(self) -> None:
        self.asked: list[int] = []
        self.summaries: list[Any] = []

    @stillhouse.hookimpl
    def before_generate(self, row: Any) -> None:
        self.asked.append(row.index)

    @stillhouse.hookimpl
    def run_finished(self, summary: Any) -> None:
        self.summaries.append(summary)


def test_hooks_see_one_call_and_every_row_in_the_summary(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = stillhouse.Registry(entry_points=())
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)
    watcher = Watcher()
    registry.register_hooks("watcher", watcher)
    source, output = write(WORDS), tmp_path / "out.jsonl"
    stillhouse.run(source, llm="echo", output=output, dedupe=True, limit=3)
    stillhouse.run(source, llm="echo", output=output, dedupe=True)
    assert sorted(watcher.asked) == [0, 1, 3, 6]
    assert [(summary.done, summary.skipped) for summary in watcher.summaries] == [(3, 0), (4, 3)]


def test_an_estimate_counts_them_once(write: Any, tmp_path: Path) -> None:
    plain = stillhouse.estimate(write(["a", "b", "c", "d"], "once.jsonl"), llm="echo", max_new_tokens=5)
    found = stillhouse.estimate(write(WORDS), llm="echo", max_new_tokens=5, dedupe=True)
    assert (found.rows, found.repeated, found.max_output) == (7, 3, plain.max_output)
    assert found.max_input == plain.max_input
    output = tmp_path / "out.jsonl"
    stillhouse.run(write(WORDS), llm="echo", max_new_tokens=5, dedupe=True, limit=3, output=output)
    left = stillhouse.estimate(write(WORDS), llm="echo", max_new_tokens=5, dedupe=True, output=output)
    assert (left.finished, left.rows, left.repeated) == (3, 4, 2)


def test_progress_reaches_the_end(write: Any) -> None:
    for options in ({}, {"limit": 6}):
        seen: list[Any] = []
        stillhouse.run(write(WORDS), llm="echo", dedupe=True, on_progress=seen.append, **options)  # type: ignore[arg-type]
        assert (seen[-1].rows, seen[-1].share) == (options.get("limit", 7), 1.0)


def test_an_interrupted_run_asks_for_no_row_twice(
    start: Any, server: Server, write: Any, tmp_path: Path
) -> None:
    source, output = write([f"row {number % 90}" for number in range(300)]), tmp_path / "out.jsonl"
    process = start(source, "-o", output, "--dedupe")
    assert server.wait_for(30)
    process.kill(signal.SIGINT)
    assert process.wait() == 130
    assert not output.exists()
    assert start(source, "-o", output, "--dedupe").wait() == 0
    assert Counter(server.asked) == Counter(f"row {number}" for number in range(90))
    assert [row["generations"] for row in read_jsonl(output)] == [[f"row {n % 90}!0"] for n in range(300)]


def test_they_take_little_memory() -> None:
    """24 bytes for each repeat, and nothing for another row."""
    import tracemalloc

    rows = 20_000

    def formatter(row: Row) -> Any:
        return [{"role": "user", "content": f"row {row.index % (rows // 2)}"}]

    tracemalloc.start()
    repeats = find_repeats((Row(index, index + 1) for index in range(rows)), formatter)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(repeats) == rows // 2
    assert peak < 30 * rows
