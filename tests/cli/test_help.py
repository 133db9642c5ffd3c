"""`--help` and `stillhouse show` at the widths of terminals, as they are checked in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest

import stillhouse
from stillhouse.cli.app import app
from stillhouse.cli.help import MAX_WIDTH

from .terminals import check_golden, on_pty, plain


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "arguments", [["status", "--help"], ["show", "echo"]], ids=lambda words: "-".join(words)
)
def test_what_a_terminal_shows(tmp_path: Path, arguments: list[str], columns: int, rewriting: bool) -> None:
    status, got = on_pty(arguments, tmp_path, columns)
    assert status == 0
    text = plain(got)
    assert all(len(line) <= columns for line in text.splitlines())
    text = text.replace(stillhouse.__version__, "VERSION")
    check_golden(f"{'-'.join(arguments).replace('--', '')}.{columns}", text, rewriting)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"]], ids=lambda words: "-".join(words))
def test_the_help_is_as_wide_as_the_terminal(tmp_path: Path, arguments: list[str], columns: int) -> None:
    status, got = on_pty(arguments, tmp_path, columns)
    widths = [len(line) for line in plain(got).splitlines()]
    assert status == 0
    assert max(widths) <= columns
    assert not re.search(r"[a-z]\.\.\.", got.replace("[INPUT]...", ""))
    if "generate" in arguments:
        assert max(widths) > columns - 10
        groups = re.findall("^[A-Z][a-z ]+:$", plain(got), re.M)
        assert groups == [
            "Model:", "Input:", "Prompts:", "Rows:", "Output:", "Run:", "Limits:", "Offline batches:",
            "Options:", "Examples:",
        ]  # fmt: skip


def commands() -> list[tuple[str, click.Command]]:
    return sorted(app.commands.items())


@pytest.mark.parametrize(
    ("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_has_a_short_help_an_example_and_plain_metavars(name: str, command: Any) -> None:
    assert len(command.get_short_help_str(MAX_WIDTH)) <= 55
    assert not command.get_short_help_str(MAX_WIDTH).endswith((".", "..."))
    assert command.examples
    text = command.get_help(click.Context(command, info_name=name, max_content_width=MAX_WIDTH))
    assert not re.search(r"RANGE|INTEGER|x>=|\bTEXT\b(?!\]| |$)", text), text
    assert "Examples:" in text
    assert text.isascii()


def test_every_command_is_in_a_section_of_the_help(run: Any) -> None:
    text = run("--help").out
    assert all(re.search(f"^  {name}  ", text, re.M) for name, _ in commands())


@pytest.mark.parametrize(
    ("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_examples_name_options_that_exist(name: str, command: Any) -> None:
    for _, text in command.examples:
        for line in text.replace("\\\n", " ").split("\n"):
            words = line.rpartition("| ")[2].split()
            assert words[:2] == ["stillhouse", name]
            known = {
                option
                for parameter in command.params
                for option in (*parameter.opts, *parameter.secondary_opts)
            }
            assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("columns", [20, 60])
def test_a_narrow_terminal_breaks_no_name(tmp_path: Path, columns: int) -> None:
    _, got = on_pty(["show", "echo"], tmp_path, columns)
    assert re.search("^generation_kwargs", plain(got), re.M)


def test_a_pipe_gets_a_line_for_each_setting(run: Any) -> None:
    lines = run("show", "echo").out.splitlines()
    assert any(
        re.match("latency +float . None +0.0 +Seconds to wait before each answer.$", line) for line in lines
    )


class BatchLLM(stillhouse.LLM):
    """Does batches."""

    capabilities = frozenset({"chat", "offline_batch"})
    own: int = 1

    @property
    def model_name(self) -> str:
        return "m"

    def generate(self, inputs: Any, num_generations: int = 1) -> Any:
        return []


def test_fields_stand_in_groups(run: Any, own_registry: stillhouse.Registry) -> None:
    own_registry.register("batch", BatchLLM)
    text = run("show", "batch").out
    titles = [
        "fields (--set", "own ", "fields of every backend (--set", "generation_kwargs ",
        "fields of offline batches (--set", "use_offline_batch_generation ",
    ]  # fmt: skip
    places = [text.index(f"\n{title}") for title in titles]
    assert places == sorted(places)
    assert "offline batches" not in run("show", "echo").out
