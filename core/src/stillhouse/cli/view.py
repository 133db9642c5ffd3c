"""`stillhouse view`: the rows of a run in a browser, also while the run goes on."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import click

from stillhouse.cli.help import Command
from stillhouse.cli.output import flush, guarded, print_line, print_note
from stillhouse.cli.standard import output as standard_output

__all__ = ["view"]


@click.command(
    "view",
    cls=Command,
    short_help="Show the rows of a run in a browser",
    examples=[("Print an address to open", "stillhouse view answers.jsonl --no-open")],
)
@click.argument("output")
@click.option(
    "--state", type=click.Path(path_type=Path), metavar="PATH", help="The run's state, if not OUTPUT.run.db."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="The port to listen on; a free one if not said.",
)
@click.option(
    "--open/--no-open",
    "opens",
    default=None,
    help="Open the page in a browser, or do not; if not said, on a terminal with a desktop.",
)
@guarded
def view(output: str, state: Path | None, port: int, opens: bool | None) -> None:
    """Show the rows of OUTPUT in a browser on this machine, also while the run goes on.

    It prints the address of a page that only this machine can open, and serves it until Ctrl-C. Nothing of
    the run is changed. The state of a run can be given as OUTPUT too.
    """
    from stillhouse.jobs.viewing.server import ViewServer, check_installed
    from stillhouse.jobs.viewing.viewer import Viewer
    from stillhouse.registry import default_registry

    check_installed()
    viewer = Viewer(output, default_registry().hooks(), state)
    try:
        with ViewServer(viewer, port) as server:
            print_line(server.address)
            flush()
            print_note(f"showing the run of {viewer.name}; press Ctrl-C to stop")
            if _has_desktop() if opens is None else opens:
                _open(server.address_to_open())
            threading.Event().wait()  # a signal ends it
    finally:
        viewer.close()


def _has_desktop() -> bool:
    """Whether a browser with a window can be opened here: one in the terminal would take it over."""
    if not standard_output().isatty() or os.environ.get("SSH_CONNECTION") or os.environ.get("CI"):
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open(address: str) -> None:
    import webbrowser

    try:
        is_open = webbrowser.open(address)
    except (OSError, webbrowser.Error):
        is_open = False
    if not is_open:
        print_note("no browser could be opened; open the address yourself")
