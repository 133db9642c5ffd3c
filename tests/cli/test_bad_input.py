"""A wrong value of an option is one error with what to do, and status 2, before anything is loaded or written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse import EchoLLM

from .conftest import Result, write_rows

GENERATE = [
    ["-n", "0"], ["-n", "x"], ["-n", "1.5"], ["--limit", "0"], ["--limit", "-1"], ["--max-concurrency", "0"],
    ["--max-concurrency", "many"], ["--wait", "-1"], ["--wait", "nan"], ["--wait", "soon"], ["--batch", "--wait", "inf"],
    ["--max-cost", "0"], ["--max-cost", "nan"], ["--max-cost", "-2"], ["--max-cost", "free"], ["--max-cost", "inf"],
    ["--max-tokens-total", "0"], ["--max-tokens-total", "1e3"], ["--param", "temperature"], ["--param", "=1"],
    ["--param", "nope=1"], ["--param", "max_new_tokens=x"], ["--param", "max_new_tokens=1", "--param", "max_new_tokens=2"],
    ["--set", "latency"], ["--set", "nope=1"], ["--set", "latency=x"], ["--set", "latency=-1"], ["--set", "latency=nan"],
    ["--set", "failure_kind=odd"], ["--set", "latency=1", "--set", "latency=1"], ["--config", "none.json"],
    ["--config", "in.jsonl"], ["--config", "bad.json"], ["--config", "bad.yaml"], ["--config", "list.json"],
    ["--config", "other.json"], ["--config", "."], ["--retry", "odd"], ["--retry", ""], ["--template", "{{"],
    ["--template", "{% odd %}"], ["--llm", ""], ["--llm", ":m"], ["--llm", "echo:"], ["--finish-online", "--batch"],
    ["--odd"], ["-x"], ["-"], [""], ["--prompt", "x"], ["--delimiter", "::"], ["--encoding", "odd"],
    ["--state", "."], ["--state", "none/run.db"], ["--state", ""], ["--state", "/"], ["--where", ""], ["--where", " "],
    ["--template-file", ""], ["--template-file", "."], ["--system-file", ""], ["--system-file", "."],
    ["--schema", ""], ["--schema", "."],
]  # fmt: skip

OTHERS = [
    ["list", "--available", "--requirements"], ["list", "x"], ["list", "--odd"], ["show"], ["show", "echo", "x"],
    ["check", "--odd"], ["models"], ["models", "listing", "--set", "nope=1"], ["models", "listing", "--set", "latency=x"],
    ["models", "listing", "--set", "latency"], ["status"], ["status", "out.jsonl", "--odd"], ["report"],
    ["report", "out.jsonl", "-o", "page.txt"], ["report", "out.jsonl", "-o", "."], ["batches"], ["new"],
    ["new", "Odd Name"], ["new", "x", "--into", "none"], ["new", "x", "--into", "in.jsonl"], ["odd"], ["--odd"],
]  # fmt: skip


class ListingLLM(EchoLLM):
    def list_models(self) -> Any:
        raise AssertionError("the provider was asked")


@pytest.fixture
def refused(
    run: Callable[..., Result], own_registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run a command, and see that nothing was loaded or written."""
    monkeypatch.chdir(tmp_path)
    own_registry.register("listing", ListingLLM)

    def load(self: EchoLLM) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(EchoLLM, "load", load)
    write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}])
    for name, text in {
        "bad.json": "{", "bad.yaml": "a: [", "list.json": "[]", "other.json": '{"llm": "other"}',
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.iterdir())

    def refused(*arguments: str) -> Result:
        result = run(*arguments)
        assert sorted(tmp_path.iterdir()) == before
        return result

    return refused


def check(result: Result) -> None:
    assert (result.status, result.out) == (2, ""), result.err
    first, *rest = result.err.splitlines()
    assert first.startswith("error: ")
    assert all(line.startswith("  try  ") for line in rest)
    assert len(rest) <= 1


@pytest.mark.parametrize("arguments", GENERATE, ids=" ".join)
@pytest.mark.parametrize("output", ["out.jsonl", "-"])
def test_a_wrong_option_of_generate(
    refused: Callable[..., Result], arguments: list[str], output: str
) -> None:
    llm = [] if "--llm" in arguments else ["--llm", "echo"]
    check(refused("generate", "in.jsonl", *llm, "-o", output, *arguments))


@pytest.mark.parametrize("arguments", OTHERS, ids=" ".join)
def test_a_wrong_argument_of_another_command(refused: Callable[..., Result], arguments: list[str]) -> None:
    check(refused(*arguments))
