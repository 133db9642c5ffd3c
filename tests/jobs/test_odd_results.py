"""Whatever a backend returns for a row, the run goes on, and the other rows are stored with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import GenerationError, prepare_output
from stillhouse.jobs.formats.rows import Row, RowFormatter
from stillhouse.jobs.runs.bulk import open_bulk_run
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.online import RunStatistics
from stillhouse.jobs.spending.budget import Budget, Ceiling
from stillhouse.jobs.store.columns import tokens_of
from stillhouse.jobs.store.store import SqliteStore

from .odd_answers import ANSWERS, OddLLM, registered  # noqa: F401

ODD: tuple[Any, ...] = (
    *(2**63, 2**53 + 1, 10**400, 1e308, -1, -(2**63), 0.5, float("nan"), float("inf"), True),
    *("x", "", "9" * 30, "\ud83d", b"x", [1], [[[[]]]], {}, {"a": {"b": [{}]}}, {1: 2}, None, object()),
)

ANSWER: dict[str, Any] = {
    "generations": ["text"],
    "statistics": {"input_tokens": [5], "output_tokens": [7], "cached_tokens": [1]},
    "finish_reasons": ["stop"],
    "reasoning": ["because"],
    "tool_calls": [[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]],
    "logprobs": [[[{"token": "text", "logprob": -0.5}]]],
    "own": ["x"],
}


def run(folder: Path, answers: list[Any], **command: Any) -> list[Any]:
    """Generate for as many rows as there are answers, and return the rows of the output."""
    ANSWERS[:] = answers
    source, output = folder / "rows.jsonl", folder / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": str(place)}) + "\n" for place in range(len(answers))))
    with OddLLM(max_concurrency=64) as llm:
        asked = Command(str(source), str(output), RowFormatter(), **command)
        with open_bulk_run(llm, asked) as bulk:
            assert bulk.work(RunStatistics())
    return [json.loads(line) for line in output.read_text().splitlines()]


def variants(value: Any) -> list[Any]:
    """The value with each of its nodes replaced by each odd one, and the odd ones themselves."""
    made = list(ODD)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for place, item in items:
        for replaced in variants(item):
            copied: Any = value.copy()
            copied[place] = replaced
            made.append(copied)
    return made


def test_no_node_of_an_output_ends_a_run(tmp_path: Path) -> None:
    good = prepare_output(["good"], [1], [1])
    answers = [good, *variants(ANSWER), good]
    rows = run(tmp_path, answers)
    assert len(rows) == len(answers) > 500
    assert rows[0]["generations"] == rows[-1]["generations"] == ["good"]
    for row in rows:
        error, texts, counts = row["error"], row["generations"], row["statistics"] or {}
        assert error is not None or (len(texts) == 1 and isinstance(texts[0], str | None))
        assert all(type(count) is int and 0 <= count <= 2**53 for item in counts.values() for count in item)
        assert all(isinstance(reason, str | None) for reason in row["finish_reasons"] or ())
    # What is beside the generations costs no row its text.
    assert sum(row["generations"] == ["text"] for row in rows) > len(rows) - 4 * len(ODD)


def test_one_odd_count_among_64_rows_costs_nobody_anything(tmp_path: Path) -> None:
    good = prepare_output(["good"], [1], [1])
    odd = {"generations": ["odd"], "statistics": {"input_tokens": [2**63]}}
    rows = run(tmp_path, [*[good] * 32, odd, *[good] * 31])
    assert [row["generations"] for row in rows] == [["good"]] * 32 + [["odd"]] + [["good"]] * 31
    assert rows[32]["statistics"] == {}


def test_an_error_s_outputs_may_be_anything(tmp_path: Path) -> None:
    odd: list[Any] = [*ODD, *({"generations": [item], "statistics": {"input_tokens": item}} for item in ODD)]
    errors = [GenerationError("no", kind="server", outputs=[item]) for item in odd]
    rows = run(tmp_path, [*errors, prepare_output(["good"])])
    assert [row["error"] and row["error"]["message"] for row in rows] == ["no"] * len(errors) + [None]


def test_a_row_that_the_database_refuses_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line, for what nothing before it has thought of."""

    def record(store: Any, row: Row, result: Any, seconds: Any) -> tuple[Any, ...]:
        made = list(plain(store, row, result, seconds))
        made[8] = {3: 2**63, 5: [1], 7: "\ud83d"}.get(row.index, made[8])
        if row.index == 9:
            raise RecursionError("too deep")
        return tuple(made)

    plain = SqliteStore._record
    monkeypatch.setattr(SqliteStore, "_record", record)
    rows = run(tmp_path, [prepare_output(["good"], [3], [4])] * 64)
    failed = {place: row["error"]["message"] for place, row in enumerate(rows) if row["error"]}
    assert failed.keys() == {3, 5, 7, 9}
    assert all("cannot be stored" in message for message in failed.values())
    assert all(row["generations"] == ["good"] for row in rows if row["error"] is None)


def test_an_output_cannot_pose_as_an_error(tmp_path: Path) -> None:
    (row,) = run(tmp_path, [{**prepare_output(["a"]), "error": ["no"], "model_name": ["other"]}])
    assert (row["error"], row["model_name"]) == (None, "odd")


@pytest.mark.parametrize("given", [(-5, -2), (0, 0), (1e308, 1e308), ("x", "x"), (None, None)])
def test_the_reservation_counts_where_a_report_is_none(given: Any) -> None:
    budget = Budget(Ceiling(OddLLM(), {"max_new_tokens": 10}, 1_000, None))
    asked = 0
    while budget.reserve(asked, [{"role": "user", "content": "x"}], 1):
        output = {
            "generations": ["a"],
            "statistics": {"input_tokens": [given[0]], "output_tokens": [given[1]]},
        }
        budget.charge(asked, stillhouse.outputs.check_output(output, 1, "odd"), 1.0)
        asked += 1
    assert 0 < asked < 20
    assert budget.spent_tokens > 900


def test_a_sum_of_counts_is_a_count_too() -> None:
    output: Any = {"generations": ["a"] * 3, "statistics": {"input_tokens": [2**53, 2**53, "4"]}}
    assert tokens_of(output).input == 4
    assert tokens_of({"statistics": None}, {}, None).input is None  # type: ignore[typeddict-item]
