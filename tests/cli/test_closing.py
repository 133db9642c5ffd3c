"""What stands at the end of a run, on terminals and in pipes: the table, one answer, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

import stillhouse
from stillhouse import FormattedInput, GenerateOutput

from .conftest import Result, write_rows
from .terminals import check_golden, on_pty, plain

ROWS = [{"prompt": "What is the highest mountain in Bolivia?"}, {"text": "x"}, {"prompt": "b\x1b[2J c"}]
OPTIONS = ["generate", "in.jsonl", "--llm", "echo", "-o", "out.jsonl", "--param", "max_new_tokens=3"]

_TIMES = re.compile(r"(?<=^time ).*|(?<=per second ).*|(?<=^latency per row, p[59][05] ).*", re.M)


def timeless(text: str) -> str:
    """Return what a terminal shows, with the times and speeds masked, and without the live line."""
    lines = [line for line in plain(text).splitlines() if not re.match("[━─]|starting| *[0-9]+%", line)]
    # How far numbers are aligned depends on the speeds.
    return re.sub(r"(?<=\S)  +", "  ", _TIMES.sub(" #", "\n".join(lines)))


@pytest.mark.parametrize("columns", [80, 120])
def test_a_run_ends_with_an_answer_and_where_things_are(
    tmp_path: Path, columns: int, rewriting: bool
) -> None:
    write_rows(tmp_path / "in.jsonl", ROWS)
    status, got = on_pty(OPTIONS, tmp_path, columns)
    assert status == 3, got
    assert "\x1b[31mfailed: invalid_input" in got
    check_golden(f"closing.{columns}", timeless(got), rewriting)


def test_a_pipe_gets_no_answer_and_no_colour(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "in.jsonl", ROWS)
    result = run(*OPTIONS)
    assert "mountain" not in result.err
    assert "\x1b" not in result.err
    assert result.err.endswith(
        "output  out.jsonl\nstate   out.jsonl.run.db\nreport  stillhouse report out.jsonl\n"
    )


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_no_colour_where_none_is_wanted(tmp_path: Path, environment: dict[str, str]) -> None:
    write_rows(tmp_path / "in.jsonl", ROWS)
    for arguments in (OPTIONS, ["status", "out.jsonl"], ["list"], ["list", "--nonsense"]):
        _, got = on_pty(arguments, tmp_path, 80, **environment)
        assert not re.search("\x1b\\[[0-9;]*m", got), ascii(got)


@pytest.mark.parametrize("columns", [20, 80])
def test_an_answer_is_shown_and_never_done(tmp_path: Path, columns: int) -> None:
    write_rows(tmp_path / "in.jsonl", [{"prompt": "a\x1b]0;t\x07" + "b" * 5000}])
    _, got = on_pty(OPTIONS, tmp_path, columns)
    assert "\x1b]" not in got
    assert "a\ufffd]0;t\ufffdbbb" in plain(got).replace("\n", "")
    assert got.count("b") < 500


def failing(run: Callable[..., Result], *more: object) -> str:
    """The command that the closing table gives for rows that failed."""
    result = run(*OPTIONS, "--set", "failure_rate=0.5", "--max-failures", 0, *more)
    assert result.status == 3
    return re.findall("generate them again: (.*)", result.err)[0]


def test_the_command_to_retry_can_be_copied(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "in.jsonl", [{"prompt": f"text {number}"} for number in range(40)])
    command = (
        "stillhouse generate in.jsonl --llm echo --set failure_rate=0.5 --param max_new_tokens=3 "
        "--system 'a b' --output out.jsonl --max-failures 0 --retry server"
    )
    assert failing(run, "--system", "a b") == command
    assert failing(run, "--system", "a b", "--retry", "server") == command
    assert failing(run, "--system", "a b", "--retry=server") == command
    assert failing(run, "--restart", "--system", "a b") == command


class KeyLLM(stillhouse.AsyncLLM):
    api_key: SecretStr | None = None

    @property
    def model_name(self) -> str:
        return "m"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        raise stillhouse.GenerationError("no", kind="server")


def test_no_secret_is_in_the_command_to_copy(run: Callable[..., Result], tmp_path: Path) -> None:
    stillhouse.default_registry().register("key", KeyLLM)
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}])
    result = run(
        "generate", source, "--llm", "key", "--set", "api_key=sk-very-secret-0123456789",
        "-o", tmp_path / "out.jsonl",
    )  # fmt: skip
    assert "generate them again: the same command with --retry server\n" in result.err
    assert "very-secret" not in result.err


def test_quiet_prints_errors_alone(run: Callable[..., Result], tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    target = tmp_path / "out.jsonl"
    result = run("generate", source, "--llm", "echo", "-o", target, "--quiet")
    assert (result.status, result.out, result.err) == (3, "", "")
    assert run("generate", source, "--llm", "echo", "-o", target, "--quiet").err == ""
    result = run("generate", source, "--llm", "echo", "-o", "-", "--quiet")
    assert (result.status, result.err, result.out.count("\n")) == (3, "", 3)
    result = run(
        "generate", source, "--llm", "echo", "-o", tmp_path / "other.csv", "--quiet", "--retry", "no"
    )
    assert (result.status, result.err.startswith("error: ")) == (2, True)


def test_quiet_on_a_terminal_shows_no_progress(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", ROWS[:1])
    assert on_pty([*OPTIONS, "--quiet"], tmp_path, 80) == (0, "")
