"""The closing table says why generations ended and why rows failed."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import Any, ClassVar

import pytest

import stillhouse
from stillhouse import AsyncLLM, FormattedInput, GenerateOutput, GenerationError, prepare_output
from stillhouse.jobs.reporting.tables import SHOWN_ENDINGS, failure_lines, summary_lines
from stillhouse.jobs.runs.reasons import Reasons
from stillhouse.jobs.runs.statistics import RunStatistics

from ..support import squeezed

HEAD = "why rows failed, most often:\n"


def failed(kind: Any, message: str) -> dict[str, Any]:
    return {"generations": None, "statistics": None, "error": {"kind": kind, "message": message}}


def done(*reasons: str | None) -> dict[str, Any]:
    texts = ["text"] * len(reasons)
    return {"generations": texts, "statistics": {}, "finish_reasons": list(reasons), "error": None}


def ending_lines(reasons: Reasons, rows: int) -> list[tuple[str, str]]:
    lines = summary_lines(RunStatistics(done=rows), reasons)
    return [line for line in lines if line[0].startswith("ended")]


class MoodyLLM(AsyncLLM):
    """Fails, or ends, as its input says."""

    broken: ClassVar[bool] = True

    @property
    def model_name(self) -> str:
        return "moody"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        kind, _, message = str(input[-1]["content"]).partition(" ")  # type: ignore[index, typeddict-item]
        if self.broken and message:
            error = GenerationError(message, kind=kind)  # type: ignore[arg-type]
            if kind == "odd1":
                error.kind = ["odd"]  # type: ignore[assignment]
            raise error
        _, given, reason = kind.partition("end:")
        reasons = [reason or None] * num_generations if given else None
        return prepare_output(["text"] * num_generations, finish_reasons=reasons)


@pytest.fixture(autouse=True)
def moody(own_registry: stillhouse.Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    own_registry.register("moody", MoodyLLM)
    monkeypatch.setattr(MoodyLLM, "broken", True)


@pytest.mark.parametrize("output", ["out.jsonl", "-"])
def test_a_run_of_which_every_row_fails_says_why(
    run: Any, rows_file: Any, tmp_path: Path, output: str
) -> None:
    """The same reason is told once, whatever numbers it has."""
    source = rows_file(["{broken", {"prompt": 5}, *({"text": "a"} for _ in range(1200)), *["{broken"] * 30])
    target = output if output == "-" else tmp_path / output
    result = run("generate", source, "--llm", "echo", "-o", target)
    assert result.status == 3
    assert "failed: invalid_input 1,232" in squeezed(result.err)
    table, _, reasons = result.err.partition(HEAD)
    assert "output tokens per second" in table
    assert reasons.splitlines()[:3] == [
        "  1,200 rows, the first of them row 3: invalid_input: line 3: the row has no messages, conversations, "
        "prompt or instruction; its columns are: text",
        "  31 rows, the first of them row 1: invalid_input: line 1: not valid JSON: Expecting property name "
        "enclosed in double quotes at character 2",
        "  row 2: invalid_input: line 2: the column prompt is a number, not a text",
    ]


def test_reasons_of_earlier_processes_count_too(
    run: Any, rows_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = ["server request req_12ab failed", "server request req_9 failed", "server other", "fine"]
    options = [
        "generate", rows_file([{"prompt": prompt} for prompt in prompts]), "--llm", "moody",
        "-o", tmp_path / "out.jsonl",
    ]  # fmt: skip
    assert "  row 1: server: request req_12ab failed\n" in run(*options, "--limit", 1).err
    result = run(*options)
    again = re.escape(f"{HEAD}  2 rows, the first of them row 1: server: request req_12ab failed\n")
    again += "  row 3: server: other\ngenerate them again: stillhouse generate .* --retry server\n"
    assert re.search(again, result.err)
    monkeypatch.setattr(MoodyLLM, "broken", False)
    assert HEAD not in run(*options, "--retry", "all").err


def test_a_message_is_one_line_that_a_terminal_only_shows() -> None:
    reasons = Reasons()
    reasons.add(4, failed("server", "a\n\n  b\t\x1b[2Jc " + "x" * 1000))
    (_, line) = failure_lines(reasons.failures)
    assert line.startswith("  row 5: server: a b \ufffd[2Jc xxx")
    assert line.isprintable()
    assert len(line) < 250


def test_the_commonest_failure_of_each_kind_is_told_and_the_rest_is_counted() -> None:
    reasons = Reasons()
    messages = [*["a"] * 5, *["b"] * 4, *["c"] * 3, *["d"] * 2, "e"]
    for row, message in enumerate(messages):
        reasons.add(row, failed("server", message))
    for row, kind in enumerate(["timeout", "schema", ["odd"], "odd\n", None], 15):
        reasons.add(row, failed(kind, "x"))
    assert failure_lines(reasons.failures, ["timeout", "server", "invalid_input"]) == [
        HEAD.strip(),
        "  5 rows, the first of them row 1: server: a",
        "  3 rows, the first of them row 18: unknown: x",
        "  row 16: timeout: x",
        "  row 17: schema: x",
        "  10 more rows: see the column error",
        "generate them again: the same command with --retry server,timeout",
    ]


def test_reasons_of_any_number_take_little_room() -> None:
    reasons = Reasons()
    words = (
        f"{'ab'[number % 2] * (number % 61)}{'cd'[number % 3 % 2] * (number // 61)}"
        for number in range(5_000)
    )
    tracemalloc.start()
    for place, word in enumerate(words):
        text = f"{word}{'y' * 5000}"[:5000]
        reasons.add(place, failed("server", text))
        reasons.add(place, done(text, text[::-1]))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 3 << 20
    lines = failure_lines(reasons.failures)
    assert len(lines) == 5
    assert lines[-1] == "  4,997 more rows: see the column error"
    endings = ending_lines(reasons, 5_000)
    assert len(endings) == SHOWN_ENDINGS
    assert sum(int(value.split()[0].replace(",", "")) for _, value in endings) == 10_000
    assert endings[-1][0] == "ended: other"


def test_kinds_of_as_many_rows_are_listed_alike_whichever_ended_first() -> None:
    for kinds in permutations(("server", "timeout", "invalid_input")):
        statistics = RunStatistics(failed=Counter({**dict.fromkeys(kinds, 2), "truncated": 3}))
        lines = summary_lines(statistics, Reasons())
        assert [label for label, _ in lines if label.startswith("failed")] == [
            "failed: truncated", "failed: invalid_input", "failed: server", "failed: timeout",
        ]  # fmt: skip


# Why generations ended


@pytest.mark.parametrize("output", ["out.jsonl", "-"])
def test_the_table_says_how_many_rows_were_cut_off(
    run: Any, rows_file: Any, tmp_path: Path, output: str
) -> None:
    prompts = [*["end:stop"] * 1199, *["end:length"] * 800, "end:", "server no"]
    target = output if output == "-" else tmp_path / output
    result = run(
        "generate", rows_file([{"prompt": prompt} for prompt in prompts]), "--llm", "moody", "-o", target
    )
    assert result.status == 3
    table = squeezed(result.err.partition("input tokens")[0]).splitlines()[-6:]
    assert table == [
        "rows 2,001",
        "done 2,000",
        "failed: server 1",
        "ended: stop 1,199 (60.0%)",
        "ended: length 800 (40.0%), cut off: raise max_new_tokens",
        "ended: unknown 1 (0.1%)",
    ]
    assert all(len(line) <= 80 for line in result.err.partition("why rows")[0].splitlines())


def test_rows_of_earlier_processes_and_each_generation_count(
    run: Any, rows_file: Any, tmp_path: Path
) -> None:
    source = rows_file([{"prompt": "end:stop"}, {"prompt": "end:length"}, {"prompt": "end:stop"}])
    options = ["generate", source, "--llm", "moody", "-o", tmp_path / "out.jsonl", "-n", 2]
    assert "ended: stop 2 generations\n" in squeezed(run(*options, "--limit", 1).err)
    result = run(*options)
    table = {line[:24].strip(): re.split(" {2,}", line[26:].strip()) for line in result.err.splitlines()}
    assert table["ended: stop"] == ["4 generations (66.7%)", "2 generations (50.0%)"]
    assert table["ended: length"] == [
        "2 generations (33.3%)", "2 generations (50.0%)", "cut off: raise max_new_tokens"
    ]  # fmt: skip
    status = run("status", tmp_path / "out.jsonl")
    assert [line.split()[1:3] for line in status.out.splitlines() if line.startswith("ended")] == [
        ["stop", "4"], ["length", "2"],
    ]  # fmt: skip
    facts = json.loads(run("status", tmp_path / "out.jsonl", "--json").out)
    assert facts["endings"] == {"stop": 4, "length": 2}


def test_a_kind_that_is_none_is_unknown_and_ends_no_run(run: Any, rows_file: Any, tmp_path: Path) -> None:
    source = rows_file([{"prompt": f"odd{number % 7} no"} for number in range(20)])
    result = run("generate", source, "--llm", "moody", "-o", tmp_path / "out.jsonl", "--max-failures", 0)
    assert result.status == 3
    assert "failed: unknown 20\n" in squeezed(result.err)
    assert "20 rows, the first of them row 1: unknown: no\n" in result.err


def test_where_no_backend_says_why_nothing_is_said(run: Any, rows_file: Any, tmp_path: Path) -> None:
    source = rows_file([{"prompt": "fine"}, {"prompt": "end:"}])
    assert "ended" not in run("generate", source, "--llm", "moody", "-o", tmp_path / "out.jsonl").err


@pytest.mark.parametrize(
    ("reason", "label"),
    [
        ("a\n\n\tb\x1b[2J\u202e\x00", "a b\ufffd[2J\ufffd\ufffd"),
        ("x" * 1_000_000, "x" * 23 + "\u2026"),
        ("  ", "unknown"),
        ("\ud83d", "\ufffd"),
    ],
    ids=["controls", "long", "blank", "surrogate"],
)
def test_an_odd_reason_stays_in_its_line(reason: str, label: str) -> None:
    reasons = Reasons()
    reasons.add(0, done(reason, "stop"))
    assert [found for found, _ in ending_lines(reasons, 1)] == sorted([f"ended: {label}", "ended: stop"])


@pytest.mark.parametrize("reasons", [None, [], ["stop"], ["stop", "stop", "stop"], "ab", [["stop"], 7]])
def test_reasons_of_another_number_or_type_are_unknown(reasons: Any) -> None:
    counted = Reasons()
    counted.add(0, {**done("a", "b"), "finish_reasons": reasons})
    assert counted.endings.counts == {"unknown": 2}
