"""`stillhouse status`: the status of a run, from another process."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO, cast

import click

from stillhouse.cli.help import Command
from stillhouse.cli.output import flush, guarded, is_read, print_facts, print_json, print_line
from stillhouse.cli.standard import output as standard_output

if TYPE_CHECKING:
    from stillhouse.jobs.copies.facts import CopyFact
    from stillhouse.jobs.reporting.status import Places
    from stillhouse.jobs.runs.pace import RunPace
    from stillhouse.jobs.runs.provenance import Provenance
    from stillhouse.jobs.runs.summary import Summary
    from stillhouse.jobs.store.damage import Damage

__all__ = ["status"]

WATCH_SECONDS = 1.0
JSON_SECONDS = 2.0

# Reading the state of a run with millions of rows takes a while: it must not take the time of the run.
MAX_SHARE_OF_TIME = 0.1


class _Status(NamedTuple):
    """What is known of a run at one moment.

    Attributes:
        working: whether a process works on it.
        summary: its state.
        pace: how fast it is.
        damage: what of the state is damaged; `None` if nothing is.
        places: where the run is.
        latest: how many rows the latest session finished and failed.
        provenance: how the run was begun; `None` if that is not known.
        copied: what the state knows of its copies; `None` for a run without any.
    """

    working: bool
    summary: Summary
    pace: RunPace
    damage: Damage | None
    places: Places
    latest: tuple[int, int] | None
    provenance: Provenance | None
    copied: CopyFact | None


@click.command(
    "status",
    cls=Command,
    short_help="Show the progress of a run",
    examples=[("Follow a run until it ends", "stillhouse status answers.jsonl --watch")],
)
@click.argument("output")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@click.option("--watch", is_flag=True, help="Refresh until the run ends.")
@click.option(
    "--state", type=click.Path(path_type=Path), metavar="PATH", help="The run's state, if not OUTPUT.run.db."
)
@guarded
def status(output: str, as_json: bool, watch: bool, state: Path | None) -> None:
    """Show the progress of the run of OUTPUT, whether or not it is running now.

    OUTPUT can also be the state of a run.
    """
    if as_json:
        _print_json(output, state, watch)
        return
    found = _read(output, state, answers=not watch)
    if watch and found.working:
        found = _watch(lambda: _read(output, state, answers=False), found)
    if is_read():
        _print_status(found)


def _print_json(output: str, state: Path | None, watch: bool) -> None:
    """Print the facts once, or on a line each until the run ends."""
    from stillhouse.jobs.reporting.status import status_as_json

    while True:
        began = time.monotonic()
        found = _read(output, state, answers=not watch, counts=True)
        took = time.monotonic() - began
        facts = status_as_json(
            output, found.working, found.summary, found.pace, found.places, found.latest, found.damage,
            found.copied,
        )  # fmt: skip
        print_json(facts, indent=None if watch else 2)
        flush()
        if not watch or not found.working or not is_read():
            return
        _pause(JSON_SECONDS, took)


def _watch(read: Callable[[], _Status], found: _Status) -> _Status:
    """Show the progress of a run until it ends, in a line that changes or in a few; return its status."""
    from stillhouse.jobs.reporting.showing import display_on
    from stillhouse.jobs.reporting.tables import source_lines, status_lines
    from stillhouse.jobs.reporting.watched import progress_of

    print_facts([status_lines(found.summary, found.working)[0], *source_lines(found.pace)])
    flush()
    took = 0.0
    with closing(display_on(cast("TextIO", standard_output()))) as display:
        while found.working and is_read():
            display(progress_of(found.summary, found.pace))
            _pause(WATCH_SECONDS, took)
            began = time.monotonic()
            found = read()
            took = time.monotonic() - began
    return found


def _pause(seconds: float, took: float) -> None:
    """Wait before the state is read again; `took` is how many seconds that took the last time."""
    time.sleep(max(seconds, took / MAX_SHARE_OF_TIME))


def _read(output: str, state: Path | None, *, answers: bool = True, counts: bool = False) -> _Status:
    """Read the status of a run.

    Args:
        output: what the user gave.
        state: the path of the state, if that was given.
        answers: whether to look at every answer of a run that is working.
        counts: whether to count the rows of the latest session.
    """
    from stillhouse.jobs.copies.facts import copy_of
    from stillhouse.jobs.formats.opening import output_path
    from stillhouse.jobs.reporting.status import Places, latest_counts
    from stillhouse.jobs.runs.pace import pace_of
    from stillhouse.jobs.runs.provenance import provenances_of
    from stillhouse.jobs.runs.summary import explained, summarize
    from stillhouse.jobs.store.database import store_path
    from stillhouse.jobs.store.found import state_of
    from stillhouse.jobs.store.lock import is_worked_on
    from stillhouse.jobs.store.places import is_same_name
    from stillhouse.jobs.store.salvage import intact
    from stillhouse.jobs.store.seals import facts_of
    from stillhouse.registry import default_registry

    place = output_path(output, default_registry().hooks())
    path = state_of(place, state)
    working = is_worked_on(path)
    # A process that works on it looked for damage when it began; looking again reads every row.
    with intact(path, checked=not working) as (connection, damage):
        # To look at every answer every few seconds would slow the run down.
        summary = explained(summarize(connection), connection, answers=answers or not working)
        provenances = provenances_of(connection)
        pace = pace_of(connection, summary, working)
        latest = latest_counts(connection, summary) if counts else None
        copied = copy_of(connection)
        owner = facts_of(connection).get("output") or place.name
    is_other = path == store_path(place) and not is_same_name(owner, place.name)
    first = provenances[min(provenances)] if provenances else None
    places = Places(place, path, owner if is_other else "")
    return _Status(working, summary, pace, damage, places, latest, first, copied)


def _print_status(found: _Status) -> None:
    from stillhouse.jobs.reporting.commands import line_to_copy
    from stillhouse.jobs.reporting.tables import copy_lines, failure_lines, status_lines

    lines = [*status_lines(found.summary, found.working, found.pace), *copy_lines(found.copied)]
    if found.damage is not None:
        lines[0] = ("state", f"damaged; with the same command, {found.damage.told}")
    if found.places.copied_from:
        lines.insert(1, ("state of", f"{found.places.copied_from}: it was copied or renamed"))
    print_facts(lines)
    reasons = found.summary.reasons
    for line in () if reasons is None else failure_lines(reasons.failures, found.summary.failed):
        print_line(line)
    if not found.working and not found.summary.complete and found.summary.sessions:
        print_line(f"to resume, run again: {line_to_copy(found.provenance)}")
