"""The application: its commands, its own options, and how it ends."""

from __future__ import annotations

import difflib
import sys
import traceback
from typing import Any, NoReturn

import click

from stillhouse.cli.batches import batches
from stillhouse.cli.check import check
from stillhouse.cli.generate.command import generate
from stillhouse.cli.help import MAX_WIDTH, documentation
from stillhouse.cli.install.command import install
from stillhouse.cli.join import join
from stillhouse.cli.keys import keys
from stillhouse.cli.list import list_plugins
from stillhouse.cli.models import models
from stillhouse.cli.new import new
from stillhouse.cli.output import print_error, print_line
from stillhouse.cli.report import report
from stillhouse.cli.show import show
from stillhouse.cli.signals import INTERRUPTED, handling
from stillhouse.cli.standard import wrapped
from stillhouse.cli.status import status
from stillhouse.cli.streams import OutputError
from stillhouse.cli.view import view
from stillhouse.errors import StillhouseError

__all__ = ["app"]


class _Commands(click.Group):
    """A group that suggests the command that was meant, and ends as all commands do."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run a command line, and end with its status.

        Whatever it prints goes through the streams of `stillhouse.cli.streams`, also what click does.
        """
        with handling() as interrupts:
            try:
                with wrapped():
                    status = self._status(*args, **{**extra, "standalone_mode": False})
            except OutputError as error:
                with wrapped():
                    print_error(StillhouseError(str(error), hint="make room, or give a file with -o"))
                status = 1
            except KeyboardInterrupt:
                status = INTERRUPTED
            if interrupts.count:
                status = INTERRUPTED
        sys.exit(status)

    def _status(self, *args: Any, **extra: Any) -> int:
        try:
            ended = super().main(*args, **extra)
        except click.ClickException as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
            else:
                print_error(_explained(error))
            return error.exit_code
        except click.Abort as error:  # click's word for two things
            if isinstance(error.__cause__, EOFError):
                raise error.__cause__ from None
            return INTERRUPTED
        except OutputError:
            raise
        except Exception:  # a mistake of ours, or of a backend
            traceback.print_exc()
            return 1
        return ended if isinstance(ended, int) else 0

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, each section under its title, and where there is more to read."""
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(str(command.name), command.get_short_help_str(MAX_WIDTH)) for command in commands]
                )
        formatter.write_paragraph()
        formatter.write_text("stillhouse COMMAND --help shows the options of a command, with examples.")
        address = documentation()
        if address:
            formatter.write_text(f"Documentation: {address}")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.commands, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"available: {', '.join(self.commands)}"
            ctx.fail(f"there is no command {name!r}; {hint}")
        return super().resolve_command(ctx, args)


def _explained(error: click.ClickException) -> StillhouseError:
    """Return what click refuses, as everything else is refused."""
    context = getattr(error, "ctx", None)
    hint = "" if context is None else f"{context.command_path} --help"
    return StillhouseError(error.format_message(), hint=hint)


def _print_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:  # noqa: ARG001
    if wanted:
        import importlib_metadata

        print_line(f"stillhouse {importlib_metadata.version('stillhouse')}")
        ctx.exit()


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": MAX_WIDTH}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def app() -> None:
    """One interface to every language model. Backends are ordinary packages: install one to use it."""


_SECTIONS = {
    "Runs": (generate, status, view, report, join, batches),
    "Backends": (install, list_plugins, show, models, keys, check, new),
}
for section in _SECTIONS.values():
    for command in section:
        app.add_command(command)
