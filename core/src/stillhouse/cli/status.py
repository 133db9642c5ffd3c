"""`stillhouse status`: the status of a run, from another process."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import click

from stillhouse.cli.help import Command
from stillhouse.cli.output import flush, guarded, is_read, print_facts, print_json, print_line

__all__ = ["status"]

WATCH_SECONDS = 2.0


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
    while True:
        working = _print_status(output, state, as_json, one_line=watch)
        flush()
        if not watch or not working or not is_read():
            return
        time.sleep(WATCH_SECONDS)


def _print_status(output: str, state: Path | None, as_json: bool, *, one_line: bool) -> bool:
    from stillhouse.jobs.formats.opening import output_path
    from stillhouse.jobs.reporting.commands import line_to_copy
    from stillhouse.jobs.reporting.tables import failure_lines, status_lines
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
        summary = explained(summarize(connection), connection, answers=not (working and one_line))
        provenances = provenances_of(connection)
        pace = pace_of(connection, summary, working)
        owner = facts_of(connection).get("output") or place.name
    if as_json:
        facts = {"output": output, "working": working, **asdict(pace), **summary.as_json()}
        facts["damaged"] = None if damage is None else damage._asdict()
        print_json(facts, indent=None if one_line else 2)
        return working
    lines = status_lines(summary, working, pace)
    if damage is not None:
        lines[0] = ("state", f"damaged; with the same command, {damage.told}")
    if path == store_path(place) and not is_same_name(owner, place.name):
        lines.insert(1, ("state of", f"{owner}: it was copied or renamed"))
    print_facts(lines)
    for line in (
        failure_lines(summary.reasons.failures, summary.failed) if summary.reasons is not None else ()
    ):
        print_line(line)
    if not working and not summary.complete and summary.sessions:
        first = provenances[min(provenances)] if provenances else None
        print_line(f"to resume, run again: {line_to_copy(first)}")
    if one_line:
        print_line()
    return working
