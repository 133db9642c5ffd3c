"""`Command`: one whose help has its options in groups, and examples; and the types that its options have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

__all__ = ["MAX_WIDTH", "Command", "Commands", "Whole", "documentation", "grouped"]

F = TypeVar("F", bound=Callable[..., Any])

# No line of a help is longer, however wide the terminal is: it would be hard to read.
MAX_WIDTH = 120


class Command(click.Command):
    """A command.

    Args:
        examples: comments, each with the command that it is about.
    """

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.context_settings = {"max_content_width": MAX_WIDTH, **self.context_settings}
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, each group under its title."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            # What the arguments are is in the words above.
            record = None if isinstance(parameter, click.Argument) else parameter.get_help_record(ctx)
            if record is not None:
                # The range of a number is in the words of the help, where it matters.
                record = record[0], re.sub(r"\s*\[[0-9<=>x]+\]$", "", record[1])
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        # That for help is the last one that click adds.
        for title in sorted(groups, key=lambda title: title == "Options"):
            with formatter.section(title):
                formatter.write_dl(groups[title])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, as they can be copied."""
        if self.examples:
            with formatter.section("Examples"):
                for place, (comment, command) in enumerate(self.examples):
                    if place:
                        formatter.write("\n")
                    indent = " " * formatter.current_indent
                    formatter.write(f"{indent}# {comment}\n")
                    formatter.write("".join(f"{indent}{line}\n" for line in command.split("\n")))
        super().format_epilog(ctx, formatter)


class Commands(Command, click.Group):
    """A command that has commands."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, and the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


class Whole(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A whole number of at least `minimum`, which the help calls N."""

    name = "n"

    def __init__(self, minimum: int) -> None:
        self._range = click.IntRange(min=minimum)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        try:
            return self._range.convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{str(value)!r} is not a whole number of {self._range.min} or more", param, ctx)


def documentation() -> str | None:
    """Return the address of the documentation, as the installed package has it; `None` if it has none."""
    import importlib_metadata

    metadata: Any = importlib_metadata.metadata("stillhouse")
    for entry in metadata.get_all("Project-URL") or ():
        label, _, address = str(entry).partition(",")
        if label.strip().lower() == "documentation":
            return address.strip()
    return None


def grouped(function: F, groups: Iterable[tuple[str, Sequence[Callable[[Any], Any]]]]) -> F:
    """Give a command options in groups; the help shows them in this order.

    Args:
        function: that of the command.
        groups: the title of each, and its options.
    """
    for title, options in reversed(list(groups)):
        for option in reversed(options):
            function = option(function)
            function.__click_params__[-1].group = title  # type: ignore[attr-defined]
    return function
