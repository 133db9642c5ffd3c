"""What stands at the end of a run: the table, why rows failed, one answer, and what to do next."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.cli.output import print_facts, print_note

if TYPE_CHECKING:
    from stillhouse.jobs.runs.command import Command
    from stillhouse.jobs.runs.looking import Look
    from stillhouse.jobs.runs.reasons import Reasons
    from stillhouse.jobs.runs.statistics import RunStatistics
    from stillhouse.jobs.runs.summary import Summary

__all__ = ["print_peek", "print_places", "print_table", "retry_command"]

# What of a prompt and of its answer is shown.
PEEK_CHARACTERS = 150


def print_table(statistics: RunStatistics, reasons: Reasons, whole: Summary | None, command: Command) -> None:
    """Print the closing table, and why rows failed; `whole` is the run, where it is kept."""
    from stillhouse.jobs.reporting.tables import failure_lines, summary_lines

    print_facts(summary_lines(statistics, reasons, whole), sys.stderr)
    for line in failure_lines(
        reasons.failures, () if whole is None else whole.failed, lambda kinds: retry_command(command, kinds)
    ):
        print_note(line)


def retry_command(command: Command, kinds: str) -> str:
    """Return the command that generates failed rows again, as it can be copied."""
    from stillhouse.jobs.reporting.commands import line_to_copy
    from stillhouse.jobs.runs.provenance import Provenance

    return line_to_copy(Provenance(command=[list(part) for part in command.given]), f"--retry {kinds}")


def print_peek(reasons: Reasons, look: Look | None, command: Command) -> None:
    """Print the first row that has an answer, where somebody looks: a log need not have it."""
    from stillhouse.errors import GenerationError
    from stillhouse.inputs import split_input
    from stillhouse.jobs.runs.said import in_a_line, shortened
    from stillhouse.protocols import InputWithArguments

    if reasons.answer is None or not sys.stderr.isatty():
        return
    index, answer = reasons.answer
    prompt = ""
    for row in () if look is None else look.rows:
        if row.index == index:
            input = command.formatter(row)
            if isinstance(input, InputWithArguments):
                input = input.input
            if not isinstance(input, GenerationError):
                prompt = _last_text(split_input(input)[0])
    print_note(f"\nrow {index + 1:,}: {shortened(in_a_line(prompt), PEEK_CHARACTERS)}".rstrip(": "))
    print_note(f"  {shortened(in_a_line(answer), PEEK_CHARACTERS)}\n")


def _last_text(content: object) -> str:
    """Return the text of a raw prompt, or that of the last message of a chat."""
    if isinstance(content, list) and content:
        content = content[-1].get("content")
    if isinstance(content, list):
        texts = [
            part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"
        ]
        content = " ".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def print_places(command: Command, state: Path | None) -> None:
    """Print where the output and the state are, and what looks at them."""
    output = shlex.quote(command.output)
    own = f"{output} --state {shlex.quote(str(command.state))}" if command.state is not None else output
    print_facts(
        [("output", command.output), ("state", str(state)), ("report", f"stillhouse report {own}")],
        sys.stderr,
    )
