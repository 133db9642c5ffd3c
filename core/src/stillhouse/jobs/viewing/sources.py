"""`source_of`: where the prompts and the columns of a run's rows come from: its input, or its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stillhouse.jobs.formats.columns import RESULTS
from stillhouse.jobs.formats.opening import open_file, open_output
from stillhouse.jobs.formats.partial import PartialFolder
from stillhouse.jobs.formats.reading import Reading
from stillhouse.jobs.formats.writing import BATCH
from stillhouse.jobs.sources.names import Names, is_address, shown
from stillhouse.jobs.sources.opening import open_input
from stillhouse.jobs.store.places import spool_path
from stillhouse.jobs.store.written import has_stamps
from stillhouse.protocols import HookCalls, RowReader
from stillhouse.typing import GenerateOutput

__all__ = ["RunSource", "latest_session", "source_of"]


@dataclass(frozen=True)
class RunSource:
    """Where the prompts and the columns of rows come from.

    Attributes:
        name: what it is called.
        open: opens it; `None` if there is nothing to open.
        is_output: whether it is the output: its rows are those of the state, without those that are missing.
        left_out: columns that the output added.
        notice: what a person has to know about it; empty for nothing.
    """

    name: str
    open: Callable[[], RowReader] | None
    is_output: bool = False
    left_out: frozenset[str] = frozenset()
    notice: str = ""


def source_of(
    facts: Mapping[str, Any], target: str, output: Path, state: Path, hooks: HookCalls
) -> RunSource:
    """Find where the prompts of a run are.

    Args:
        facts: what the state says about the run.
        target: the output, as the run was given it.
        output: the path of the output.
        state: the path of the state.
        hooks: the installed plugins.
    """
    command = facts.get("command") or {}
    reading = Reading(command.get("delimiter"), command.get("encoding"))
    names = _names_of(facts)
    found = _found(names, state.parent, hooks)
    if found is not None:
        return RunSource(str(Names(names)), partial(open_input, Names(found), hooks, reading))
    spool = PartialFolder.path_of(spool_path(output))
    saved = next((spool / name for name in ("rows.jsonl", "rows.parquet") if (spool / name).is_file()), None)
    if not names and saved is not None:
        return RunSource("the input of the run", partial(open_file, str(saved), reading))
    missing = (
        f"the input {Names(names)} is not a file that can be read here"
        if names
        else "the state does not name a file as the input"
    )
    return _of_output(facts, target, output, hooks, missing)


def latest_session(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the last session recorded about itself; empty where none did."""
    sessions = [
        (int(number), value)
        for key, value in facts.items()
        for word, _, number in [key.partition(" ")]
        if word == "session" and number.isdecimal() and isinstance(value, dict)
    ]
    return max(sessions, key=lambda session: session[0])[1] if sessions else {}


def _names_of(facts: Mapping[str, Any]) -> list[str]:
    """Return the names of the input, as the last session recorded them."""
    names = latest_session(facts).get("input")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _found(names: list[str], folder: Path, hooks: HookCalls) -> list[str] | None:
    """Return where the files of an input are, also if they moved with the state; `None` if one is missing."""
    found = []
    for name in names:
        try:
            if is_address(name) and not name.lower().startswith("file://"):
                return None  # copied for the run, and only as long as it works
            moved = folder / Path(name).name
            if any(mark in name for mark in "*?[") or Path(name).exists():
                found.append(name)
            elif moved.exists():
                found.append(str(moved))
            else:
                reader = hooks.open_reader(name)
                if reader is None:
                    return None
                reader.close()
                found.append(name)
        except (OSError, ValueError):
            return None
    return found or None


def _of_output(
    facts: Mapping[str, Any], target: str, output: Path, hooks: HookCalls, missing: str
) -> RunSource:
    """Return the output as the source, if it is whole and as the run wrote it."""
    complete = facts.get("complete") or {}
    outputs = complete.get("outputs", {"": {}}) if complete else {}
    written = outputs.get("") if isinstance(outputs, dict) else None
    if written is None:
        return RunSource("", None, notice=f"Prompts and columns cannot be shown: {missing}.")
    if written.get("format") == BATCH:
        reason = "its output has no columns of the input"
        return RunSource("", None, notice=f"Prompts and columns cannot be shown: {missing}, and {reason}.")
    if not output.exists():
        reason = f"{shown(output.name)} does not exist"
        return RunSource("", None, notice=f"Prompts and columns cannot be shown: {missing}, and {reason}.")
    mark = (facts.get("written") or {}).get("mark")
    if not has_stamps(output, mark):
        reason = f"{output.name} has changed since the run wrote it"
        return RunSource("", None, notice=f"Prompts and columns cannot be shown: {missing}, and {reason}.")
    prefix = written.get("prefix") or ""
    names = {prefix + name for name in (*RESULTS, *GenerateOutput.__annotations__)}
    opening = partial(open_output, target, hooks, written.get("format"))
    return RunSource(output.name, opening, is_output=True, left_out=frozenset(names))
