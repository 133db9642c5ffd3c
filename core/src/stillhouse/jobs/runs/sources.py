"""`source_of`: where the prompts and the columns of a run's rows come from: its input, or its output."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stillhouse.errors import StillhouseError
from stillhouse.jobs.formats.columns import RESULTS
from stillhouse.jobs.formats.opening import open_file, open_output
from stillhouse.jobs.formats.partial import PartialFolder
from stillhouse.jobs.formats.reading import Reading
from stillhouse.jobs.formats.writing import BATCH
from stillhouse.jobs.runs.provenance import Provenance, provenances_of
from stillhouse.jobs.sources.files import is_glob, local_path
from stillhouse.jobs.sources.names import Names, is_address, shown
from stillhouse.jobs.sources.opening import open_input
from stillhouse.jobs.store.places import spool_path
from stillhouse.jobs.store.seals import facts_of
from stillhouse.jobs.store.written import has_stamps
from stillhouse.protocols import HookCalls, RowReader
from stillhouse.typing import GenerateOutput

__all__ = ["RunSource", "source_of"]

# What says that only some rows of the input belong to the run.
_CHOOSING = ("where", "sample", "shard")


@dataclass(frozen=True)
class RunSource:
    """Where the prompts and the columns of rows come from.

    Attributes:
        name: what it is called.
        open: opens it; `None` if there is nothing to open.
        missing: why there is nothing to open; empty if there is.
        is_output: whether it is the output: its rows are those of the state, without those that are missing.
        left_out: columns that the output added.
        total: returns how many rows of the source belong to the run.
    """

    name: str
    open: Callable[[], RowReader] | None
    missing: str = ""
    is_output: bool = False
    left_out: frozenset[str] = frozenset()
    total: Callable[[int | None], int | None] = lambda _: None


def source_of(
    connection: sqlite3.Connection,
    target: str,
    output: Path,
    state: Path,
    hooks: HookCalls | None = None,
    *,
    is_local: bool = False,
) -> RunSource:
    """Find where the prompts of a run are.

    Args:
        connection: the state.
        target: the output, as the run was given it.
        output: the path of the output.
        state: the path of the state.
        hooks: the installed plugins.
        is_local: whether only files are read, and not what a plugin opens, which may be far away.
    """
    facts = facts_of(connection)
    command = facts.get("command") or {}
    sessions = provenances_of(connection)
    session = sessions[max(sessions)] if sessions else Provenance()
    total = _Total(facts, session)
    reading = Reading(command.get("delimiter"), command.get("encoding"))
    names = session.input
    folders = dict.fromkeys([state.parent, output.parent])
    found = [_found(name, folders, None if is_local else hooks) for name in names]
    if names and None not in found:
        opening = partial(open_input, Names(map(str, found)), hooks, reading)
        return RunSource(str(Names(names)), opening, total=total)
    spool = PartialFolder.path_of(spool_path(output))
    saved = next((spool / name for name in ("rows.jsonl", "rows.parquet") if (spool / name).is_file()), None)
    if not names and saved is not None:
        return RunSource("the input of the run", partial(open_file, str(saved), reading), total=total)
    missing = (
        f"the input {Names(names)} is not a file that can be read here"
        if names
        else "the state does not name a file as the input"
    )
    return _of_output(facts, target, output, hooks, missing)


class _Total:
    """How many rows a run has, as far as its state says how many of the input belong to it.

    Args:
        facts: what the state says about the run.
        session: what its latest session ran with.
    """

    def __init__(self, facts: Mapping[str, Any], session: Provenance) -> None:
        command, complete = facts.get("command") or {}, facts.get("complete")
        self._is_known = not any(name in command for name in _CHOOSING)
        self._limit: int | None = None
        if complete:
            self._limit = complete.get("limit")
            return
        for part in session.command:
            if len(part) == 2 and part[0] == "--limit" and part[1].isdecimal():
                self._limit = int(part[1])
        if not session.is_shell and any("limit=" in text for part in session.command for text in part):
            self._is_known = False

    def __call__(self, rows: int | None) -> int | None:
        """Return how many rows the run has of an input; `None` where that is not known."""
        if rows is None or not self._is_known:
            return None
        return rows if self._limit is None else min(rows, self._limit)


def _found(name: str, folders: Iterable[Path], hooks: HookCalls | None) -> str | None:
    """Return where a part of an input is now: a file, or what a plugin reads; `None` for neither."""
    if is_address(name) and not name.lower().startswith("file://"):
        return None  # it was copied for the run
    place = _place_of(name, folders)
    if place is None and hooks is not None:
        with contextlib.suppress(StillhouseError, OSError, ValueError):
            reader = hooks.open_reader(name)
            if reader is not None:
                reader.close()
                return name
    return place


def _place_of(name: str, folders: Iterable[Path]) -> str | None:
    """Return where a named file, folder or glob is now; one that was moved may be in a folder."""
    with contextlib.suppress(OSError, ValueError, StillhouseError):
        path = local_path(name)
        if Path(path).exists() or is_glob(path):
            return name
        for folder in folders:
            moved = folder / Path(path).name
            if moved.exists():
                return str(moved)
    return None


def _of_output(
    facts: Mapping[str, Any], target: str, output: Path, hooks: HookCalls | None, missing: str
) -> RunSource:
    """Return the output as the source, if it is whole and as the run wrote it."""
    complete = facts.get("complete") or {}
    outputs = complete.get("outputs", {"": {}}) if complete else {}
    written = outputs.get("") if isinstance(outputs, dict) else None
    if written is None:
        return _nothing(missing)
    if written.get("format") == BATCH:
        return _nothing(f"{missing}, and its output has no columns of the input")
    if not output.exists():
        return _nothing(f"{missing}, and {shown(output.name)} does not exist")
    mark = (facts.get("written") or {}).get("mark")
    if not has_stamps(output, mark):
        return _nothing(f"{missing}, and {output.name} has changed since the run wrote it")
    prefix = written.get("prefix") or ""
    names = {prefix + name for name in (*RESULTS, *GenerateOutput.__annotations__)}
    opening = partial(open_output, target, hooks, written.get("format"))
    return RunSource(output.name, opening, is_output=True, left_out=frozenset(names))


def _nothing(reason: str) -> RunSource:
    return RunSource("", None, missing=reason)
