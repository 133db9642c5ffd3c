"""`stillhouse report`: its options, its JSON, and the commands that its page gives to copy."""

from __future__ import annotations

import html
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

import stillhouse
from stillhouse import AsyncLLM

from .conftest import Result


@pytest.fixture
def made(run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of the command with failures."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"row {number}", "group": "it's"} for number in range(60)]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    result = run(
        "generate", "rows.jsonl", "--llm", "echo", "--set", "failure_rate=0.3", "--set", "failure_kind=timeout",
        "--system", "Don't be 'clever'", "-o", "out.jsonl", "--max-failures", "0",
    )  # fmt: skip
    assert result.status == 3, result.err
    return tmp_path


def copied(page: str) -> list[str]:
    return [html.unescape(text) for text in re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)]


def test_report_gives_commands_that_work(run: Callable[..., Result], made: Path) -> None:
    assert run("report", "out.jsonl").out == "out.jsonl.report.html\n"
    retry, command = copied((made / "out.jsonl.report.html").read_text(encoding="utf-8"))
    assert shlex.split(command) == [
        "stillhouse", "generate", "rows.jsonl", "--llm", "echo", "--set", "failure_rate=0.3", "--set",
        "failure_kind=timeout", "--system", "Don't be 'clever'", "--output", "out.jsonl", "--max-failures", "0",
    ]  # fmt: skip
    assert retry == f"{command} --retry timeout"
    failed = json.loads(run("report", "out.jsonl", "--json").out)["failed"]["timeout"]
    assert 5 < failed < 30
    again = subprocess.run(
        [sys.executable, "-c", "from stillhouse.cli import main; main()", *shlex.split(retry)[1:]],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert again.returncode == 3, again.stderr
    sessions = json.loads(run("report", "out.jsonl", "--json").out)["sessions"]
    assert [session["retried"] for session in sessions] == [0, failed]
    assert sorted(shlex.split(sessions[1]["command"])) == sorted(shlex.split(retry))


def test_report_of_a_repeated_command_gives_the_first_one(run: Callable[..., Result], made: Path) -> None:
    command = ["generate", "rows.jsonl", "--llm", "echo", "-o", "out.jsonl", "--restart"]
    assert run(*command).status == 0
    found = json.loads(run("report", "out.jsonl", "--json").out)
    assert found["command"] == "stillhouse generate rows.jsonl --llm echo --output out.jsonl --restart"
    assert found["failures"] == []


def test_report_masks_what_a_command_line_must_not_have(
    run: Callable[..., Result], made: Path, own_registry: stillhouse.Registry
) -> None:
    class KeyLLM(AsyncLLM):
        api_key: SecretStr | None = None
        base_url: str = ""

        @property
        def model_name(self) -> str:
            return "m"

        async def agenerate(self, input: object, num_generations: int = 1) -> dict[str, object]:  # type: ignore[override]
            return {"generations": ["x"], "statistics": {}}

    own_registry.register("key-llm", KeyLLM)
    result = run(
        "generate", "rows.jsonl", "--llm", "key-llm", "--set", "api_key=sk-12345678", "--set",
        "base_url=https://me:word@host/v1", "-o", "key.jsonl",
    )  # fmt: skip
    assert result.status == 0, result.err
    command = json.loads(run("report", "key.jsonl", "--json").out)["command"]
    assert "--set 'api_key=**********'" in command
    assert "word" not in command
    assert b"sk-12345678" not in Path("key.jsonl.run.db").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json", "-o", "a.html"], "--json prints the report, and -o names a page"),
        (["other.jsonl", "--by", "group"], "--by groups the rows of one run"),
        (["other.jsonl", "--state", "a.db"], "--state is that of one run"),
    ],
)
def test_report_refuses_options_that_exclude_each_other(
    run: Callable[..., Result], made: Path, options: list[str], message: str
) -> None:
    result = run("report", "out.jsonl", *options)
    assert result.status == 2
    assert message in result.err
    assert not list(made.glob("*.html"))


def test_report_compares_and_groups(run: Callable[..., Result], made: Path) -> None:
    assert run("generate", "rows.jsonl", "--llm", "echo", "-o", "two.jsonl").status == 0
    result = run("report", "out.jsonl", "two.jsonl")
    assert result.out == "out.jsonl.against.two.jsonl.report.html\n"
    found = json.loads(run("report", "out.jsonl", "two.jsonl", "--json").out)
    assert found["rows"]["matched"] == 60
    assert found["rows"]["failed_in_first"] == sum(found["runs"][0]["failed"].values())
    assert run("report", "out.jsonl", "--by", "group").status == 0
    assert "<bdi>it&#39;s</bdi>" in (made / "out.jsonl.report.html").read_text(encoding="utf-8")
    missing = run("report", "out.jsonl", "gone.jsonl")
    assert missing.status == 1
    assert "gone.jsonl.run.db does not exist" in missing.err
    column = run("report", "out.jsonl", "--by", "grup")
    assert column.status == 1
    assert "did you mean 'group'?" in column.err


def test_report_never_replaces_what_is_no_report(run: Callable[..., Result], made: Path) -> None:
    (made / "mine.html").write_text("mine", encoding="utf-8")
    result = run("report", "out.jsonl", "out.jsonl", "-o", "mine.html")
    assert result.status == 1
    assert "is not a report of Stillhouse" in result.err
    assert (made / "mine.html").read_text(encoding="utf-8") == "mine"
