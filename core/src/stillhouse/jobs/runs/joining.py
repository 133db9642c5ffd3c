"""`join`: combines the outputs of all shards of a run into one, in the order of the input."""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stillhouse._wording import number_of
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.columns import RESULTS, ResultColumns, given_names
from stillhouse.jobs.formats.opening import open_output, open_writer, output_path
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.formats.writing import BATCH, Writing, schema_of_form
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
    """The result of joining.

    Attributes:
        output: the path of the output.
        rows: number of its rows.
        failed: number of failed rows among them.
    """

    output: Path
    rows: int
    failed: int


@dataclass
class _Part:
    """The output of a shard, which is complete and unchanged."""

    name: str
    place: Path
    shard: Shard
    command: dict[str, Any]
    written: dict[str, Any]
    connection: sqlite3.Connection
    reader: RowReader

    def rows(self) -> Iterator[tuple[Row, dict[str, Any], float]]:
        """Yield each row of the input, its result, and when it was finished.

        The columns come from the output, and the result from the state, which has it unchanged.
        """
        rows = iter(self.reader)
        finished = self.connection.execute("SELECT row, digest, result, finished FROM rows ORDER BY row")
        for index, digest, result, when in finished:
            row = next(rows, None)
            if row is None or row.error is not None:
                raise self._wrong()
            columns = {name: row.columns[name] for name in self.given(row.columns)}
            yield Row(index, index + 1, columns, digest=digest), json.loads(result), when
        if next(rows, None) is not None:
            raise self._wrong()

    def given(self, names: Iterable[str]) -> list[str]:
        """Return those of the columns of the output that it has from the input: what it adds comes last."""
        if self.written.get("format") == BATCH:
            return ["custom_id"]
        first = self.written.get("prefix", "") + RESULTS[0]
        return list(takewhile(lambda name: name != first, names))

    def _wrong(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self.name} does not have the rows that its run has",
            hint="move it away, and make the command of the shard again, which writes it again",
        )


def join(
    shards: Sequence[str], output: str, hooks: HookCalls | None = None, states: Sequence[Path] = ()
) -> Joined:
    """Write the rows of all shards of a run to one output, in the order of the input.

    Args:
        shards: the outputs of the shards, in any order.
        output: a file or a target of a plugin, which must not exist.
        hooks: the installed plugins.
        states: the states of the outputs that have none next to them, in any order; each state records its
            outputs.

    Raises:
        ConfigurationError: they are not all shards of one run, or one of them is not complete or was changed;
            or the output exists, or cannot be written.
        StoreError: a state cannot be read.
    """
    place = output_path(output, hooks)
    read = [output_path(shard, hooks) for shard in shards]
    check_places([*read, *map(store_path, read), *states], place)
    _check_free(place)
    with ExitStack() as resources:
        known = [_state(path, resources) for path in states]
        parts = [
            _part(shard, path, known, hooks, resources) for shard, path in zip(shards, read, strict=True)
        ]
        for state in known:
            if not any(part.connection is state.connection for part in parts):
                raise ConfigurationError(
                    f"{state.path} is the state of none of the shards",
                    hint="leave it out, or give its output",
                )
        _check_one_run(parts)
        columns = _columns(parts)
        format = BATCH if parts[0].written.get("format") == BATCH else None
        writer = open_writer(output, hooks, _schema(parts), columns, format)
        rows = 0
        try:
            for row, result, when in heapq.merge(
                *(part.rows() for part in parts), key=lambda item: item[0].index
            ):
                writer.write(columns.record(row, result, when))
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
            raise ConfigurationError(f"{path} already exists", hint="give another output, or move it away")


class _State(NamedTuple):
    """The state of a run, open for reading."""

    path: Path
    connection: sqlite3.Connection
    facts: dict[str, Any]

    def key_of(self, output: Path) -> str | None:
        """Return the key of an output of this run; `None` if the run did not write it."""
        for name, fact in self.facts.items():
            kind, _, key = name.partition(" ")
            if kind == "written" and fact and is_marked(output, fact["mark"]):
                return key
        return None


def _state(path: Path, resources: ExitStack) -> _State:
    connection, damage = resources.enter_context(intact(path))
    if damage is not None:
        raise ConfigurationError(
            f"the state {path} is damaged: {damage.told}", hint="make the command of the shard again first"
        )
    return _State(path, connection, facts_of(connection))


def _part(
    name: str, place: Path, states: Sequence[_State], hooks: HookCalls | None, resources: ExitStack
) -> _Part:
    """Open the output of a shard and its state, and check both."""
    beside_it = store_path(place)
    state = next((state for state in states if state.key_of(place) is not None), None)
    if state is None:
        if not beside_it.exists():
            raise ConfigurationError(
                f"{name} has no state beside it"
                + (", and none of those given wrote it as it is" if states else ""),
                hint="give the state of its run with --state PATH",
            )
        state = _state(beside_it, resources)
    connection, facts = state.connection, state.facts
    command = facts.get("command")
    if command is None:
        raise unknown_command(state.path)
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
    key = state.key_of(place)
    if key is None:
        raise ConfigurationError(
            f"{name} is not there, or was changed after its run wrote it",
            hint="put it back; or move it away and make the command of the shard again, which writes it",
        )
    how = complete.get("outputs", {"": {}}).get(key, {})  # a version with one output wrote it without options
    reader = resources.enter_context(contextlib.closing(open_output(name, hooks, how.get("format"))))
    return _Part(name, place, parse_shard(command["shard"]), command, how, connection, reader)


def _facts(part: _Part) -> dict[str, Any]:
    """Return the facts that all shards of a run share: its command, and how the outputs are written."""
    written = {name: value for name, value in part.written.items() if name != "format" or value == BATCH}
    return {**part.command, "shard": part.shard.total, "output": written}


def _columns(parts: Sequence[_Part]) -> ResultColumns:
    """Return the columns that the output adds: those that each of its parts adds."""
    command, written = parts[0].command, parts[0].written
    writing = Writing(
        BATCH if written.get("format") == BATCH else None,
        written.get("prefix", ""),
        text=written.get("text", False),
        expand=written.get("expand", False),
        schema=command.get("schema") or schema_of_form(command["llm"].get("structured_output")),
    )
    given = (name for part in parts for name in part.given(given_names(part.reader)))
    return writing.columns(list(dict.fromkeys(given)))


def _count(connection: sqlite3.Connection, state: int) -> int:
    ((count,),) = connection.execute("SELECT count(*) FROM rows WHERE state = ?", (state,))
    return int(count)


def _check_one_run(parts: Sequence[_Part]) -> None:
    """Refuse shards of several runs, and a run of which one is missing or given twice."""
    first = parts[0]
    known: dict[int, _Part] = {}
    for part in parts:
        differ = [
            f"{name}: {one}, and {other}" for name, one, other in differences(_facts(first), _facts(part))
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
            f"{number_of(len(missing), 'shard', 'is/are')} missing: "
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
        given = {*parts[0].given(schema.names)}
        for field in schema:
            if field.name not in given:
                continue
            before = types.get(field.name, field.type)
            types[field.name] = None if before is None else unify(before, field.type)
    return pa.schema([(name, type) for name, type in types.items() if type is not None])
