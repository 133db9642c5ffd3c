"""The application: its commands, and its own options."""

from __future__ import annotations

import difflib

import click

from stillhouse.cli.batches import batches
from stillhouse.cli.check import check
from stillhouse.cli.generate.command import generate
from stillhouse.cli.list import list_plugins
from stillhouse.cli.models import models
from stillhouse.cli.new import new
from stillhouse.cli.report import report
from stillhouse.cli.show import show
from stillhouse.cli.status import status

__all__ = ["app"]


class _Commands(click.Group):
    """A group that suggests the command that was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.commands, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(self.commands)}"
            ctx.fail(f"there is no command {name!r}; {hint}")
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:  # noqa: ARG001
    if wanted:
        import importlib_metadata

        print(f"stillhouse {importlib_metadata.version('stillhouse')}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def app() -> None:
    """One contract for every language model. Backends are packages that you install beside it."""


for command in (list_plugins, show, models, check, generate, status, report, batches, new):
    app.add_command(command)
