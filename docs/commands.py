"""The page of the commands, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click
from tables import code, table

from stillhouse.cli.app import app

__all__ = ["page", "walk"]


def walk(
    command: click.Command = app, name: str = "stillhouse", parent: click.Context | None = None
) -> Iterator[click.Context]:
    """The context of a command, and those of every command below it."""
    context = click.Context(command, parent, info_name=name, **command.context_settings)
    yield context
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                yield from walk(found, child, context)


def page() -> str:
    """The Markdown of the page."""
    lines = ["# Commands", "", "Every command, with all of its options, as `--help` has them.", ""]
    for context in walk():
        lines += _section(context)
    return "\n".join(lines)


def _section(context: click.Context) -> list[str]:
    name, command = context.command_path, context.command
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines = [f"## `{name}`", "", "```text", usage, "```", "", inspect.cleandoc(command.help or ""), ""]
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:  # an argument stands in the usage
            option, text = record
            rows.append((code(option), text))
    if rows:
        lines += table(("option", "what it does"), rows)
    return lines
