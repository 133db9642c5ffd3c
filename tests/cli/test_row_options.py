"""Parameters of rows and OpenAI batch files from the command line: what is said, and the exit status."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Result

BATCH = "prompt: the requests of an OpenAI batch file, with the parameters of their bodies; unused: none\n"


def line(custom_id: str, text: str = "one two three", **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    body = {"model": "m", "messages": messages, **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def call(*rows: Any) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return call


def test_the_first_line_says_which_columns_are_parameters(
    run: Callable[..., Result], write: Any, tmp_path: Path
) -> None:
    source = write({"id": 1, "prompt": "one two three", "max_new_tokens": 1}, {"id": 2, "prompt": "a b"})
    result = run("generate", source, "--llm", "echo", "--row-params", "-o", tmp_path / "out.jsonl")
    assert result.err.startswith("prompt: prompt; parameters: max_new_tokens; unused: id\n")
    assert result.status == 0
    source = write({"prompt": "a", "temperature": 1})  # which echo does not have
    result = run("generate", source, "--llm", "echo", "--row-params", "-o", tmp_path / "other.jsonl")
    assert result.err.startswith("prompt: prompt; parameters: none; unused: temperature\n")


def test_a_preview_shows_the_parameters_of_each_row(run: Callable[..., Result], write: Any) -> None:
    source = write({"prompt": "a", "max_new_tokens": 1}, {"prompt": "b", "max_new_tokens": "x"})
    result = run("generate", source, "--llm", "echo", "--row-params", "--preview", "2", "--json")
    records = [json.loads(text) for text in result.out.splitlines()]
    assert records[0]["parameters"] == {"max_new_tokens": 1}
    assert records[1]["error"]["kind"] == "invalid_input"


def test_a_batch_file_is_said_to_be_one(run: Callable[..., Result], write: Any, tmp_path: Path) -> None:
    source = write(line("a", max_tokens=2, temperature=0), line("b"))
    result = run("generate", source, "--llm", "echo", "-o", tmp_path / "out.jsonl")
    assert result.status == 0
    assert result.err.startswith(
        BATCH + "the lines name the model 'm': echo is asked instead\n"
        "body.temperature is left out: EchoLLM has no parameter temperature\n"
    )
    rows = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["custom_id"], row["generations"]) for row in rows] == [
        ("a", ["one two"]),
        ("b", ["one two three"]),
    ]


def test_a_batch_file_on_standard_input(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = "".join(json.dumps(line(str(number), max_tokens=number + 1)) + "\n" for number in range(3))
    for output in ("-", tmp_path / "out.jsonl"):
        stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
        monkeypatch.setattr("sys.stdin", stdin)
        result = run("generate", "-", "--llm", "echo", "-o", output)
        printed = result.out if output == "-" else Path(output).read_text()
        rows = [json.loads(row) for row in printed.splitlines()]
        assert [row["generations"] for row in rows] == [["one"], ["one two"], ["one two three"]]


def test_a_long_batch_file_is_printed_whole(run: Callable[..., Result], write: Any) -> None:
    source = write(*(line(str(number), text=f"text {number}", max_tokens=5) for number in range(300)))
    result = run("generate", source, "--llm", "echo", "-o", "-")
    rows = [json.loads(row) for row in result.out.splitlines()]
    assert [row["generations"] for row in rows] == [[f"text {number}"] for number in range(300)]


def test_results_in_the_format_of_the_provider_have_the_ids(
    run: Callable[..., Result], write: Any, tmp_path: Path
) -> None:
    source = write(line("b", max_tokens=1), line("a", text=""))
    result = run(
        "generate", source, "--llm", "echo", "-o", tmp_path / "out.jsonl", "--format", "openai-batch"
    )
    assert result.status == 0
    rows = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["custom_id"] for row in rows] == ["b", "a"]
    assert rows[0]["response"]["body"]["choices"][0]["message"]["content"] == "one"


@pytest.mark.parametrize("output", ["out.jsonl", "-"])
def test_an_id_twice_is_one_error_and_leaves_nothing(
    run: Callable[..., Result], write: Any, tmp_path: Path, output: str
) -> None:
    source = write(line("a"), line("b"), line("a"))
    target = output if output == "-" else tmp_path / output
    result = run("generate", source, "--llm", "echo", "-o", target)
    assert (result.status, result.out) == (1, "")
    assert "error: line 1 and line 3 have the same custom_id, 'a'" in result.err
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl"}
    result = run("generate", source, "--llm", "echo", "-o", target, "--limit", "2")
    assert result.status == 0
