"""`stillhouse join`: the outputs of all shards of a run become one output."""

from __future__ import annotations

from pathlib import Path

import click

from stillhouse._wording import number_of
from stillhouse.cli.help import Command
from stillhouse.cli.output import guarded, print_note

__all__ = ["join"]


@click.command(
    "join",
    cls=Command,
    short_help="Join the outputs of shards",
    examples=[
        ("Join the outputs of two shards", "stillhouse join part-1.jsonl part-2.jsonl -o answers.jsonl")
    ],
)
@click.argument("shards", nargs=-1, required=True, metavar="SHARD...")
@click.option(
    "-o", "--output", metavar="FILE", required=True, help="The file to write; it must not exist yet."
)
@click.option(
    "--state",
    "states",
    type=click.Path(path_type=Path),
    metavar="PATH",
    multiple=True,
    help="The state of a SHARD that has none beside it; repeatable, in any order.",
)
@guarded
def join(shards: tuple[str, ...], output: str, states: tuple[Path, ...]) -> None:
    """Write the rows of all shards of a run to one output, in the order of the input.

    Each SHARD is the OUTPUT of a complete stillhouse generate --shard I/N, with its state OUTPUT.run.db
    beside it or given with --state; their order does not matter. They are refused if one is missing, is not
    complete, was changed, or is of another run.
    """
    from stillhouse.jobs.runs.joining import join as join_shards
    from stillhouse.registry import default_registry

    joined = join_shards(shards, output, default_registry().hooks(), states)
    failed = f", {joined.failed:,} of them failed" if joined.failed else ""
    print_note(
        f"{joined.output}: {number_of(joined.rows, 'row')} of {number_of(len(shards), 'shard')}{failed}"
    )
