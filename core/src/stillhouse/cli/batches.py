"""`stillhouse batches`: the offline batches of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stillhouse.cli.help import Command
from stillhouse.cli.output import guarded, print_json, print_line

__all__ = ["batches"]


@click.command(
    "batches",
    cls=Command,
    short_help="List a run's offline batches",
    examples=[("Ask the provider for their current state", "stillhouse batches answers.jsonl --refresh")],
)
@click.argument("output")
@click.option("--refresh", is_flag=True, help="Ask the provider for their current state.")
@click.option(
    "--cancel", is_flag=True, help="Cancel unfinished batches; their results can still be collected."
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@click.option(
    "--state", type=click.Path(path_type=Path), metavar="PATH", help="The run's state, if not OUTPUT.run.db."
)
@guarded
def batches(output: str, refresh: bool, cancel: bool, as_json: bool, state: Path | None) -> None:
    """List the offline batches of the run of OUTPUT, with their last known state."""
    from stillhouse.jobs.formats.opening import output_path
    from stillhouse.jobs.reporting.tables import job_lines
    from stillhouse.jobs.runs.offline import has_batches, jobs_of
    from stillhouse.jobs.store.database import reading
    from stillhouse.jobs.store.found import state_of
    from stillhouse.offline.ledger import BatchLedger
    from stillhouse.registry import default_registry

    place = output_path(output, default_registry().hooks())
    path = state_of(place, state)
    with reading(path) as connection:
        has_ledger = has_batches(connection)
        in_order = connection.execute("SELECT 1 FROM info WHERE key = 'in_order'").fetchone() is not None
    jobs = []
    if has_ledger:
        if refresh or cancel:
            _update(place, path, cancel)
        with BatchLedger(path) as ledger:
            jobs = jobs_of(ledger)
    if as_json:
        print_json([_facts(job) for job in jobs])
    elif not jobs and in_order:
        print_line(
            "there are no offline batches in this run: its LLM generates on this machine, so there is "
            "nothing to wait for or to cancel"
        )
    elif not jobs:
        print_line("there are no offline batches in this run")
    else:
        print_line("\n".join(job_lines(jobs)))


def _update(output: Path, state: Path, cancel: bool) -> None:
    """Poll or cancel the jobs, with the LLM that the run was started with."""
    from stillhouse.jobs.runs.batches import open_batches

    with open_batches(output, state) as opened:
        for batch in opened:
            if cancel:
                batch.cancel()
            else:
                batch.poll()


def _facts(job: Any) -> dict[str, Any]:
    return {
        "id": job.job,
        "state": job.state,
        "provider_state": job.provider_state,
        "requests": job.requests,
        "rows": len(job.rows),
        "counts": job.counts,
        "message": job.message,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
    }
