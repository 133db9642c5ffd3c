"""The closing table says why rows failed."""

from __future__ import annotations

import tracemalloc
from itertools import permutations
from pathlib import Path
from typing import Any, ClassVar

import pytest

import stillhouse
from stillhouse import AsyncLLM, FormattedInput, GenerateOutput, GenerationError, prepare_output
from stillhouse.jobs.reporting.progress import reason_lines, summary_lines
from stillhouse.jobs.runs.online import RunStatistics
from stillhouse.jobs.runs.reasons import Reasons

HEAD = "why rows failed, most often:\n"


class MoodyLLM(AsyncLLM):
    """Fails as its input says."""

    broken: ClassVar[bool] = True

    @property
    def model_name(self) -> str:
        return "moody"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        kind, _, message = str(input[-1]["content"]).partition(" ")  # type: ignore[index, typeddict-item]
        if self.broken and message:
            raise GenerationError(message, kind=kind)  # type: ignore[arg-type]
        return prepare_output(["text"])


@pytest.fixture(autouse=True)
def moody(own_registry: stillhouse.Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    own_registry.register("moody", MoodyLLM)
    monkeypatch.setattr(MoodyLLM, "broken", True)


@pytest.mark.parametrize("output", ["out.jsonl", "-"])
def test_a_run_of_which_every_row_fails_says_why(
    run: Any, rows_file: Any, tmp_path: Path, output: str
) -> None:
    """The same reason is told once, whatever numbers it has."""
    source = rows_file(["{broken", *({"text": "a"} for _ in range(1200)), *["{broken"] * 30, {"prompt": 5}])
    target = output if output == "-" else tmp_path / output
    result = run("generate", source, "--llm", "echo", "-o", target)
    assert result.status == 3
    assert "failed: invalid_input     1,232" in result.err
    table, _, reasons = result.err.partition(HEAD)
    assert "output tokens per second" in table
    assert reasons.splitlines() == [
        "  1,200 rows, the first of them row 2: invalid_input: line 2: the row has no messages, prompt or "
        "instruction; its columns are: text",
        "  31 rows, the first of them row 1: invalid_input: line 1: not valid JSON: Expecting property name "
        "enclosed in double quotes at character 2",
        "  row 1,232: invalid_input: line 1232: the column prompt is a number, not a text",
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
    assert result.err.endswith(
        f"{HEAD}  2 rows, the first of them row 1: server: request req_12ab failed\n  row 3: server: other\n"
    )
    monkeypatch.setattr(MoodyLLM, "broken", False)
    assert HEAD not in run(*options, "--retry", "all").err


def test_a_message_is_one_line_that_a_terminal_only_shows() -> None:
    reasons = Reasons()
    reasons.add("server", "a\n\n  b\t\x1b[2Jc " + "x" * 1000, 4)
    (_, line) = reason_lines(reasons)
    assert line.startswith("  row 5: server: a b \ufffd[2Jc xxx")
    assert line.isprintable()
    assert len(line) < 250


def test_reasons_of_any_number_take_little_room() -> None:
    reasons = Reasons()
    words = (
        f"{'ab'[number % 2] * (number % 150)}{'cd'[number % 3 % 2] * (number // 150)}"
        for number in range(30_000)
    )
    tracemalloc.start()
    for place, word in enumerate(words):
        reasons.add("server", f"{word}{'y' * 5000}"[:5000], place)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 3 << 20
    assert len(reason_lines(reasons)) == 4


def test_kinds_of_as_many_rows_are_listed_alike_whichever_ended_first() -> None:
    for kinds in permutations(("server", "timeout", "invalid_input")):
        lines = summary_lines(RunStatistics(), 0, {**dict.fromkeys(kinds, 2), "truncated": 3})
        assert [label for label, _ in lines if label.startswith("failed")] == [
            "failed: truncated", "failed: invalid_input", "failed: server", "failed: timeout",
        ]  # fmt: skip
