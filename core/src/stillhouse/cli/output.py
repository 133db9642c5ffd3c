"""Output that all commands print in the same way: lines, facts, JSON, errors, warnings, styles.

Everything that a command prints goes through here, to the streams of `stillhouse.cli.streams`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ParamSpec, TextIO, TypeVar

import click

from stillhouse.cli.standard import output, to_errors
from stillhouse.cli.streams import shown
from stillhouse.errors import ConfigurationError, StillhouseError

__all__ = [
    "console_of", "flush", "guarded", "has_styles", "is_read", "print_error", "print_facts", "print_json",
    "print_line", "print_note", "print_piece", "print_reports", "print_styled", "print_warning",
    "usage_errors",
]  # fmt: skip

P = ParamSpec("P")
T = TypeVar("T")

USAGE = 2

_COLORS = {"error": "bold red", "warning": "bold yellow"}
_STATES = {
    "complete": "green",
    "running": "cyan",
    "damaged": "red",
    "killed": "yellow",
    "stopped": "yellow",
    "interrupted": "yellow",
}


def guarded(function: Callable[P, T]) -> Callable[P, T]:
    """Run the work of a command: an error of Stillhouse is its message and exit status 1.

    What others print goes to standard error. What they raise to end the program is an error: a command
    ends with status 0 only when it has done its work.
    """

    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> T:
        from stillhouse._execution.exits import is_from_signal

        try:
            with to_errors():
                return function(*args, **kwargs)
        except StillhouseError as error:
            print_error(error)
            raise click.exceptions.Exit(1) from None
        except BaseException as error:
            if isinstance(error, Exception) or is_from_signal(error):
                raise
            print_error(_ended(error))
            raise click.exceptions.Exit(1) from None

    return command


@contextlib.contextmanager
def usage_errors(kind: type[ConfigurationError] = ConfigurationError) -> Iterator[None]:
    """End the command with the exit status for wrong options, where it raises an error of this kind."""
    try:
        yield
    except kind as error:
        print_error(error)
        raise click.exceptions.Exit(USAGE) from None


def _ended(error: BaseException) -> StillhouseError:
    """Return the error of a command that somebody else's code would have ended."""
    from stillhouse.registry.problems import describe

    return StillhouseError(
        f"code of a plugin, or of a library of it, ended the command: {describe(error)}",
        hint="stillhouse list shows the plugins; STILLHOUSE_DISABLE_PLUGINS switches one off",
    )


def print_line(text: object = "") -> None:
    """Print a line, or several, on standard output."""
    output().write(f"{text}\n")


def print_piece(text: str) -> None:
    """Print a piece of a text on standard output, so that it is seen now.

    A piece may begin or end anywhere; on a terminal, it moves the cursor no more than a whole text does.
    """
    stream = output()
    stream.write(shown(text) if stream.isatty() else text)
    stream.flush()


def print_note(text: object) -> None:
    """Print a line, or several, on standard error."""
    sys.stderr.write(f"{text}\n")


def flush() -> None:
    """Let what was printed on standard output be seen now."""
    output().flush()


def is_read() -> bool:
    """Whether somebody may still read standard output: whoever did may have ended, as `head` does."""
    return not getattr(output(), "is_gone", False)


def print_facts(lines: Sequence[tuple[str, str]], stream: TextIO | None = None) -> None:
    """Print labels and values in two columns, on standard output or another stream."""
    target: Any = output() if stream is None else stream
    width = max(len(label) for label, _ in lines)
    if not has_styles(target):
        for label, value in lines:
            target.write(f"{label.ljust(width)}  {value}\n")
        return
    from rich.text import Text

    target.flush()
    console = console_of(target)
    for label, value in lines:
        style = _fact_style(label, value)
        line = shown(f"{label.ljust(width)}  {value}")
        console.print(Text(line, style), highlight=False, soft_wrap=True)


def _fact_style(label: str, value: str) -> str:
    """Return how a fact looks on a terminal: what failed is seen at once."""
    if label.startswith("failed"):
        return "" if value.split()[:1] == ["0"] else "red"
    if label == "state":
        return next((style for word, style in _STATES.items() if value.startswith(word)), "")
    return "yellow" if label == "ended: length" else ""


def print_styled(head: str, style: str, rest: str) -> None:
    """Print a line on standard output, on a terminal with its beginning in a style of rich."""
    _print_colored(head, rest, style, output())


def print_json(value: object, indent: int | None = 2) -> None:
    """Print JSON on standard output."""
    import json

    encoding = (getattr(output(), "encoding", None) or "").lower().replace("-", "")
    print_line(json.dumps(value, indent=indent, ensure_ascii=not encoding.startswith("utf")))


def print_reports(reports: Iterable[str]) -> None:
    """Print reports of problems, or warnings, on standard error."""
    for text in reports:
        head, bracket, rest = text.partition("[")
        _print_colored(head, bracket + rest, _COLORS.get(head, ""))


def print_error(error: StillhouseError) -> None:
    """Print an error of Stillhouse on standard error; the report of a plugin is complete in itself."""
    text = str(error)
    if text.startswith("error["):
        print_reports([text])
    else:
        _print_colored("error", f": {text}", _COLORS["error"])


def print_warning(text: str) -> None:
    """Print a warning on standard error."""
    _print_colored("warning", f": {text}", _COLORS["warning"])


def has_styles(stream: Any) -> bool:
    """Whether text on a stream has styles: on a terminal, and in a pipe where `FORCE_COLOR` is set.

    The text must pass our filter, because styles go around it.
    """
    if getattr(stream, "unfiltered", stream) is stream:
        return False
    return stream.isatty() or (bool(os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR"))


def _print_colored(head: str, rest: str, style: str, stream: Any = None) -> None:
    """Print a line on standard error or another stream, on a terminal with its beginning in a style."""
    stream = sys.stderr if stream is None else stream
    if style and has_styles(stream):
        from rich.text import Text

        text = Text.assemble((shown(head), style), shown(rest))
        stream.flush()
        console_of(stream).print(text, highlight=False, soft_wrap=True)
    else:
        stream.write(f"{head}{rest}\n")


def console_of(stream: Any, width: int | None = None) -> Any:
    """Return what formats for a terminal. Only what has been made harmless is given to it.

    Args:
        stream: a stream that has styles.
        width: how wide its lines are, where that matters.
    """
    from rich.console import Console

    # The convention of NO_COLOR is about colours; whoever sets it wants no other marks either.
    colors: Any = None if os.environ.get("NO_COLOR") else "auto" if stream.isatty() else "standard"
    terminal = getattr(stream, "unfiltered", stream)
    # Without a height, a terminal that is dumb would be 80 wide.
    return Console(file=terminal, color_system=colors, width=width, height=None if width is None else 25)
