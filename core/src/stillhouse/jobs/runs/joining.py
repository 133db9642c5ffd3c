"""`join`: the outputs of all shards of a run become one output, in the order of the input."""

from __future__ import annotations

import contextlib
import heapq
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.opening import open_reader, open_writer, output_path
from stillhouse.jobs.selection.choosing import Shard, parse_shard
from stillhouse.jobs.store.database import FAILED, QUEUED, store_path
from stillhouse.jobs.store.fingerprint import differences
from stillhouse.jobs.store.places import check_places
from stillhouse.jobs.store.salvage import intact, unknown_command
from stillhouse.jobs.store.seals import facts_of
from stillhouse.jobs.store.written import is_marked
from stillhouse.protocols import HookCalls, RowReader

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Joined", "join"]


class Joined(NamedTuple):
    """What was joined.

    Attributes:
        output: the path of the output.
        rows: how many rows it has.
        failed: of them, those that failed.
    """

    output: Path
    rows: int
    failed: int


@dataclass
class _Part:
    """The output of a shard, which is complete and as its run wrote it."""

    name: str
    place: Path
    shard: Shard
    command: dict[str, Any]
    connection: sqlite3.Connection
    reader: RowReader

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield each row of the output with its index in the input."""
        rows = iter(self.reader)
        indexes = self.connection.execute("SELECT row FROM rows ORDER BY row")
        for (index,) in indexes:
            row = next(rows, None)
            if row is None or row.error is not None:
                raise self._wrong()
            yield index, row.columns
        if next(rows, None) is not None:
            raise self._wrong()

    def _wrong(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self.name} does not have the rows that its run has",
            hint="move it away, and make the command of the shard again, which writes it again",
        )


def join(shards: Sequence[str], output: str, hooks: HookCalls | None = None) -> Joined:
    """Write the rows of all shards of a run to one output, in the order of the input.

    Args:
        shards: the outputs of the shards, in any order, each with its state beside it.
        output: a file, or what a plugin opens, that does not exist yet.
        hooks: the installed plugins.

    Raises:
        ConfigurationError: they are not all shards of one run, or one of them is not complete or was changed;
            or the output exists, or cannot be written.
        StoreError: a state cannot be read.
    """
    place = output_path(output, hooks)
    read = [output_path(shard, hooks) for shard in shards]
    check_places([path for shard in read for path in (shard, store_path(shard))], place)
    _check_free(place)
    with ExitStack() as resources:
        parts = [_part(shard, path, hooks, resources) for shard, path in zip(shards, read, strict=True)]
        _check_one_run(parts)
        writer = open_writer(output, hooks, _schema(parts))
        rows = 0
        try:
            for _, columns in heapq.merge(*(part.rows() for part in parts), key=lambda item: item[0]):
                writer.write(columns)
                rows += 1
            _check_free(place)
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        failed = sum(_count(part.connection, FAILED) for part in parts)
    return Joined(place, rows, failed)


def _check_free(output: Path) -> None:
    """Refuse to replace anything."""
    for path in (output, store_path(output)):
        if os.path.lexists(path):
            raise ConfigurationError(f"{path} is there already", hint="give another output, or move it away")


def _part(name: str, place: Path, hooks: HookCalls | None, resources: ExitStack) -> _Part:
    """Open the output of a shard and its state, and check both."""
    state = store_path(place)
    connection, damage = resources.enter_context(intact(state))
    if damage is not None:
        raise ConfigurationError(
            f"the state {state} is damaged: {damage.told}", hint="make the command of the shard again first"
        )
    facts = facts_of(connection)
    command = facts.get("command")
    if command is None:
        raise unknown_command(state)
    if command.get("shard") is None:
        raise ConfigurationError(
            f"{name} is the output of a run that is no shard", hint="give outputs of runs with --shard I/N"
        )
    complete = facts.get("complete")
    if complete is None or complete["limit"] is not None or _count(connection, QUEUED):
        why = "it has only its first rows" if complete and complete["limit"] else "it is not complete"
        raise ConfigurationError(
            f"{name} cannot be joined: {why}",
            hint="make the command of the shard again, without --limit, until it is complete",
        )
    written = facts.get("written")
    if not (written and is_marked(place, written["mark"])):
        raise ConfigurationError(
            f"{name} is not there, or was changed after its run wrote it",
            hint="put it back; or move it away and make the command of the shard again, which writes it",
        )
    reader = resources.enter_context(contextlib.closing(open_reader(name, hooks)))
    return _Part(name, place, parse_shard(command["shard"]), command, connection, reader)


def _count(connection: sqlite3.Connection, state: int) -> int:
    ((count,),) = connection.execute("SELECT count(*) FROM rows WHERE state = ?", (state,))
    return int(count)


def _check_one_run(parts: Sequence[_Part]) -> None:
    """Refuse shards of several runs, and a run of which one is missing or given twice."""
    first = parts[0]
    known: dict[int, _Part] = {}
    for part in parts:
        differ = [
            f"{name}: {one}, and {other}"
            for name, one, other in differences(
                {**first.command, "shard": first.shard.total}, {**part.command, "shard": part.shard.total}
            )
        ]
        if part.command["input"] != first.command["input"]:
            differ.append("input: they were made of different ones")
        if differ:
            raise ConfigurationError(
                f"{first.name} and {part.name} are not of one run:\n" + "\n".join(f"  {d}" for d in differ),
                hint="give the outputs of all shards of one run",
            )
        twice = known.setdefault(part.shard.number, part)
        if twice is not part:
            raise ConfigurationError(
                f"{twice.name} and {part.name} are both shard {part.shard}", hint="give each shard once"
            )
    missing = [str(Shard(number, first.shard.total)) for number in range(1, first.shard.total + 1)
               if number not in known]  # fmt: skip
    if missing:
        raise ConfigurationError(
            f"{'a shard is' if len(missing) == 1 else f'{len(missing):,} shards are'} missing: "
            f"{', '.join(missing[:10])}{' …' if len(missing) > 10 else ''}",
            hint="give the outputs of all shards of the run",
        )


def _schema(parts: Sequence[_Part]) -> pa.Schema | None:
    """Return the types of the columns; `None` where the outputs have none.

    A column that has one type in all of them keeps it. The writer decides about any other.
    """
    schemas = [part.reader.schema for part in parts]
    known = [schema for schema in schemas if schema is not None]
    if len(known) < len(schemas):
        return None
    import pyarrow as pa

    from stillhouse.jobs.formats.arrow_types import unify

    types: dict[str, pa.DataType | None] = {}
    for schema in known:
        for field in schema:
            before = types.get(field.name, field.type)
            types[field.name] = None if before is None else unify(before, field.type)
    return pa.schema([(name, type) for name, type in types.items() if type is not None])
