"""Options of `stillhouse generate` that exclude each other: every row of the tables, by a command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

import stillhouse
from stillhouse import Capability, FormattedInput
from stillhouse.jobs.launch.options import _CONFLICTS, _CONFLICTS_WITH_LLM

from .conftest import NeverLLM, Result

# The command lines that each row of the tables refuses, by its message.
COMMANDS: dict[str, list[list[str]]] = {
    "there is nothing to do": [["--llm", "online"], ["{rows}", "--prompt", "a", "--llm", "online"]],
    "--prompt prints what it generates": [
        ["--prompt", "a", "--llm", "online", *options]
        for options in (
            ["-o", "{out}"], ["--template", ""], ["--template-file", "{rows}"], ["--prompt-column", "a"],
            ["--messages-column", "a"], ["--drop-last-assistant"], ["--limit", "1"], ["--preview", "1"],
            ["--estimate"], ["--max-cost", "1"], ["--max-tokens-total", "1"], ["--where", "a"],
            ["--sample", "1"], ["--shard", "1/2"], ["--dedupe"],
        )
    ],
    "--workers requires an executor": [["{rows}", "--llm", "online", "-o", "{out}", "--workers", "2"]],
    "--prompt generates once, without workers": [
        ["--prompt", "a", "--llm", "online", "--executor", "processes"]
    ],
    "--prompt is no row, which --row-params takes parameters from": [
        ["--prompt", "a", "--llm", "online", "--row-params"]
    ],
    "--prompt is no row, which has images": [
        ["--prompt", "a", "--llm", "online", *options]
        for options in (["--images-from", "."], ["--image-column", "x"])
    ],
    "--metrics writes the progress of a run": [
        ["{rows}", "--llm", "online", "--metrics", "{out}", *options]
        for options in (["--estimate"], ["--preview", "1"])
    ] + [["--prompt", "a", "--llm", "online", "--metrics", "{out}"]],
    "--state-copy copies the state of a run": [
        ["{rows}", "--llm", "online", "--state-copy", "memory://b/c", *options]
        for options in (["--estimate"], ["--preview", "1"])
    ] + [["--prompt", "a", "--llm", "online", "--state-copy", "memory://b/c"]],
    "a raw prompt has no images": [
        ["{rows}", "--llm", "online", "-o", "{out}", "--raw", "--image-column", "x"]
    ],
    "a row has one prompt": [
        ["{rows}", "--llm", "online", "-o", "{out}", *options]
        for options in (
            ["--template", "a", "--template-file", "{rows}"], ["--template", "a", "--prompt-column", "prompt"],
            ["--prompt-column", "prompt", "--messages-column", "prompt"],
        )
    ],
    "a chat has one system message": [
        ["{rows}", "--llm", "online", "-o", "{out}", "--system", "a", "--system-file", "{rows}"]
    ],
    "a chat is no raw prompt": [
        ["{rows}", "--llm", "online", "-o", "{out}", "--raw", "--messages-column", "prompt"]
    ],
    "--drop-last-assistant is for chats": [
        ["{rows}", "--llm", "online", "-o", "{out}", "--drop-last-assistant", *options]
        for options in (["--raw"], ["--template", "{{ prompt }}"], ["--prompt-column", "prompt"])
    ],
    "a raw prompt has no form of its own": [
        ["{rows}", "--llm", "online", "-o", "{out}", "--raw", "--schema", "{rows}"]
    ],
    "{name} cannot hold its answers to a JSON schema": [
        ["{rows}", "--llm", "online", "-o", "{out}", "--schema", "{rows}"]
    ],
    "--json is for --preview": [["{rows}", "--llm", "online", "-o", "{out}", "--json"]],
    "--quiet and --verbose exclude each other": [
        ["{rows}", "--llm", "online", "-o", "{out}", "--quiet", "--verbose"]
    ],
    "--preview and --estimate say two things": [
        ["{rows}", "--llm", "online", "--preview", "1", "--estimate"]
    ],
    "--prompt prints a text, and writes no columns": [
        ["--prompt", "a", "--llm", "online", *options]
        for options in (
            ["--output-prefix", "p"], ["--text"], ["--expand"], ["--format", "csv"], ["--state", "{out}.db"],
        )
    ],
    "there is more than one text in a row, and --text and --expand are of one": [
        ["{rows}", "--llm", "online", "-o", "{out}", "-n", "2", option] for option in ("--text", "--expand")
    ],
    "--format openai-batch has the columns of the provider": [
        ["{rows}", "--llm", "online", "-o", "{out}", "--format", "openai-batch", *options]
        for options in (["--text"], ["--expand"], ["--output-prefix", "p"])
    ],
    "standard output is JSONL": [["{rows}", "--llm", "online", "-o", "-", "--format", "csv"]],
    "a run that prints its rows keeps no state": [
        ["{rows}", "--llm", "online", "-o", "-", *options]
        for options in (["--state", "{out}.db"], ["--state-copy", "memory://b/c"])
    ],
    "what is read from standard input is gone afterwards": [["-", "--llm", "online", "--estimate"]],
    "what was printed is not kept": [
        ["{rows}", "--llm", "online", "-o", "-", *options]
        for options in (
            ["--restart"], ["--retry", "all"], ["--batch"], ["--finish-online"], ["--dedupe"], ["--extend"],
        )
    ],
    "a sample reads the input twice, and standard input is gone afterwards": [
        ["-", "--llm", "online", "-o", "-", "--sample", "2"]
    ],
    "a sample of an input to which rows were added is another sample": [
        ["{rows}", "--llm", "online", "-o", "{out}", "--sample", "2", "--extend"]
    ],
    "--restart begins anew, with the input as it is": [
        ["{rows}", "--llm", "online", "-o", "{out}", "--restart", "--extend"]
    ],
    "no output is named": [["{rows}", "--llm", "online"]],
    "no LLM is named": [["{rows}", "-o", "{out}"]],
    "--finish-online ends the batches": [
        ["{rows}", "--llm", "offline", "-o", "{out}", "--batch", "--finish-online"]
    ],
    "{name} generates on this machine: it has no batch to wait for, and none to finish online": [
        ["{rows}", "--llm", "local", "-o", "{out}", *options]
        for options in (["--wait", "1"], ["--batch", "--wait"], ["--finish-online"])
    ],
    "there is no batch to wait for": [["{rows}", "--llm", "offline", "-o", "{out}", "--wait", "1"]],
    "{name} has no offline batches": [
        ["{rows}", "--llm", "online", "-o", "{out}", "--batch"],
        ["{rows}", "--llm", "online", "-o", "{out}", "--set", "use_offline_batch_generation=true"],
    ],
    "the provider generates an offline batch, without workers": [
        ["{rows}", "--llm", "offline", "-o", "{out}", "--executor", "processes", option]
        for option in ("--batch", "--finish-online")
    ],
    "a batch reports its usage only when it is done, so a ceiling cannot be enforced": [
        ["{rows}", "--llm", "offline", "-o", "{out}", "--batch", *options]
        for options in (["--max-cost", "1"], ["--max-tokens-total", "1"])
    ],
}  # fmt: skip

HINTS = {message: hint for _, message, hint in [*_CONFLICTS, *_CONFLICTS_WITH_LLM]}


class OfflineLLM(NeverLLM):
    """The same, with offline batches."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"offline_batch"})


class EngineLLM(NeverLLM):
    """The same, with an engine that has an order of its own."""

    def batch_key(self, input: FormattedInput) -> int | str | None:
        return len(input)


def test_every_conflict_has_a_command_line() -> None:
    assert set(COMMANDS) == set(HINTS)


@pytest.mark.parametrize(
    ("message", "command"),
    [
        pytest.param(message, command, id=" ".join(command))
        for message, commands in COMMANDS.items()
        for command in commands
    ],
)
def test_a_conflict_is_a_usage_error_and_nothing_is_loaded(
    run: Callable[..., Result],
    rows_file: Callable[[list[Any]], Path],
    own_registry: stillhouse.Registry,
    tmp_path: Path,
    message: str,
    command: list[str],
) -> None:
    own_registry.register("online", NeverLLM)
    own_registry.register("offline", OfflineLLM)
    own_registry.register("local", EngineLLM)
    rows = rows_file([{"prompt": "a"}])
    names = {"{rows}": str(rows), "{out}": str(tmp_path / "out.jsonl")}
    result = run("generate", *(names.get(argument, argument) for argument in command))
    assert result.status == 2, result.err
    named = command[command.index("--llm") + 1] if "--llm" in command else ""
    assert f"error: {message.format(name=named)}" in result.err
    assert HINTS[message] in result.err
    assert result.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
