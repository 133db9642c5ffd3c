"""Two runs side by side: their figures, the settings that differ, and the rows of the same input.

Rows belong together that have the same content, in whatever order the inputs have them: of several alike, the
first of one run and the first of the other, and so on.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from stillhouse.jobs.formats.opening import output_path
from stillhouse.jobs.reporting.facts import RunFacts, read_facts
from stillhouse.jobs.reporting.report import opened
from stillhouse.jobs.reporting.samples import MAX_SAMPLE_BYTES, Sample, mixed, read_samples
from stillhouse.jobs.reporting.sections import environment_of
from stillhouse.jobs.reporting.twin import REPORT_VERSION, run_as_json
from stillhouse.jobs.runs.prompted import RunInput
from stillhouse.jobs.runs.sources import RunSource
from stillhouse.jobs.store.database import DONE
from stillhouse.jobs.store.fingerprint import differences
from stillhouse.jobs.store.seals import is_sealed
from stillhouse.protocols import HookCalls

__all__ = ["Comparison", "compared", "comparison_as_json"]

MAX_SAMPLES = 10
"""How many pairs of rows are shown of each kind."""

MAX_DIFFERENCES = 60

_RESULT = 5

DIFFERENT, BROKEN, CURED = (
    "different answers",
    "failed in the second run alone",
    "failed in the first run alone",
)


@dataclass
class Comparison:
    """What two runs have in common, and what not.

    Attributes:
        first: the one run.
        second: the other one.
        settings: what differs in their commands and environments: a name, and both values.
        same: how many rows of the same content have the same answers.
        counts: how many rows of the same content differ, by how.
        both_failed: how many failed in both runs.
        only: how many rows have their content in the first run alone, and in the second alone.
        names: how the runs are named: by their outputs, or by their paths if the outputs have one name.
        pairs: rows to look at: how they differ, and the row of each run.
        note: why prompts are not shown; empty if they are.
    """

    first: RunFacts
    second: RunFacts
    settings: list[tuple[str, str, str]]
    names: tuple[str, str]
    same: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {DIFFERENT: 0, BROKEN: 0, CURED: 0})
    both_failed: int = 0
    only: tuple[int, int] = (0, 0)
    pairs: list[tuple[str, Sample, Sample]] = field(default_factory=list)
    note: str = ""

    @property
    def matched(self) -> int:
        """How many rows of the one run have the content of a row of the other."""
        return self.same + self.both_failed + sum(self.counts.values())

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "report": REPORT_VERSION,
            "names": list(self.names),
            "runs": [run_as_json(self.first), run_as_json(self.second)],
            "settings": [
                {"name": name, "first": first, "second": second} for name, first, second in self.settings
            ],
            "rows": {
                "matched": self.matched, "same": self.same, "different": self.counts[DIFFERENT],
                "failed_in_second": self.counts[BROKEN], "failed_in_first": self.counts[CURED],
                "failed_in_both": self.both_failed, "only_in_first": self.only[0],
                "only_in_second": self.only[1],
            },
            "pairs": [
                {"why": why, "first": first.as_json(), "second": second.as_json()}
                for why, first, second in self.pairs
            ],
            "pairs_note": self.note or None,
        }  # fmt: skip


def comparison_as_json(target: str, other: str, hooks: HookCalls) -> dict[str, Any]:
    """Return the comparison of two runs as JSON types.

    Raises:
        StoreError: one of them is no run, or its state cannot be read.
    """
    with compared(target, other, hooks) as found:
        return found.as_json()


@contextlib.contextmanager
def compared(target: str, other: str, hooks: HookCalls) -> Iterator[Comparison]:
    """Compare two runs, whose states are open for the block.

    Raises:
        StoreError: one of them is no run, or its state cannot be read.
    """
    with contextlib.ExitStack() as resources:
        (one, working), (two, other_working) = (
            resources.enter_context(opened(name, hooks)) for name in (target, other)
        )
        first, second = (
            read_facts(
                connection, str(output_path(name, hooks)), is_working, target=name, hooks=hooks,
                has_samples=False,
            )
            for connection, name, is_working in ((one, target, working), (two, other, other_working))
        )  # fmt: skip
        names = first.name, second.name
        found = Comparison(
            first, second, _settings(first, second), (target, other) if first.name == second.name else names
        )
        _compare_rows(found, one, two)
        yield found


def _settings(first: RunFacts, second: RunFacts) -> list[tuple[str, str, str]]:
    """Return what differs in the commands and the environments of two runs."""
    found = [*differences(first.summary.command or {}, second.summary.command or {})]
    ran = [dict(environment_of(facts.latest)) for facts in (first, second)]
    if all(ran):
        for name in dict.fromkeys([*ran[0], *ran[1]]):
            one, two = (facts.get(name, "none") for facts in ran)
            if one != two:
                found.append((name, one, two))
    return found[:MAX_DIFFERENCES]


def _compare_rows(found: Comparison, one: sqlite3.Connection, two: sqlite3.Connection) -> None:
    """Compare the rows that have the same content in both runs."""
    heaps: dict[str, list[tuple[int, int, int]]] = {DIFFERENT: [], BROKEN: [], CURED: []}
    # SQLite keeps it in a file of its own that has no name, so that memory does not grow with the rows.
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as matches:
        for name, connection in (("one", one), ("two", two)):
            matches.execute(
                f"CREATE TABLE {name} (digest, number, row, PRIMARY KEY (digest, number)) WITHOUT ROWID"
            )
            rows = connection.execute(
                "SELECT digest, row_number() OVER (PARTITION BY digest ORDER BY row), row "
                "FROM rows WHERE state != 0"
            )
            matches.execute("BEGIN")
            matches.executemany(f"INSERT INTO {name} VALUES (?, ?, ?)", rows)  # noqa: S608
            matches.execute("COMMIT")
        join = "SELECT one.row, two.row FROM one JOIN two USING (digest, number) ORDER BY one.row"
        for row, other in matches.execute(join):
            how = _difference(_columns(one, row), _columns(two, other))
            if how is None:
                found.both_failed += 1
            elif not how:
                found.same += 1
            else:
                found.counts[how] += 1
                # The largest of what is kept goes: what stays has nothing to do with the order of the input.
                item = -mixed(row), row, other
                if len(heaps[how]) < MAX_SAMPLES:
                    heapq.heappush(heaps[how], item)
                else:
                    heapq.heappushpop(heaps[how], item)
    found.only = found.first.summary.rows - found.matched, found.second.summary.rows - found.matched
    _read_pairs(found, one, two, heaps)


def _read_pairs(
    found: Comparison, one: sqlite3.Connection, two: sqlite3.Connection, heaps: dict[str, list[Any]]
) -> None:
    """Read the rows to look at; the prompts are those of the first run, or else of the second."""
    nothing = RunInput(None, RunSource("", None), two)
    for how, items in heaps.items():
        if not items:
            continue
        rows = sorted((row, other) for _, row, other in items)
        most = MAX_SAMPLE_BYTES // (2 * len(heaps))
        firsts = read_samples(one, {row: [how] for row, _ in rows}, found.first.source, most)
        has_prompts = any(sample.turns for sample in firsts)
        seconds = read_samples(
            two, {other: [how] for _, other in rows}, nothing if has_prompts else found.second.source, most
        )
        by_row = [{sample.row - 1: sample for sample in samples} for samples in (firsts, seconds)]
        for row, other in rows:
            if row in by_row[0] and other in by_row[1]:
                first, second = by_row[0][row], by_row[1][other]
                first.turns = first.turns or second.turns
                found.pairs.append((how, first, second))
        if not has_prompts and not any(sample.turns for sample in seconds):
            found.note = found.first.source.note


def _columns(connection: sqlite3.Connection, row: int) -> dict[str, Any] | None:
    record = connection.execute("SELECT * FROM rows WHERE row = ?", (row,)).fetchone()
    if record is None or not is_sealed("rows", record):
        return None
    columns: dict[str, Any] = json.loads(record[_RESULT])
    return columns if record[2] == DONE else None


def _difference(one: dict[str, Any] | None, two: dict[str, Any] | None) -> str | None:
    """Return how a row differs between two runs; empty if it does not, `None` if it failed in both."""
    if one is None and two is None:
        return None
    if one is None or two is None:
        return CURED if one is None else BROKEN
    names = ("generations", "tool_calls")
    return "" if all(one.get(name) == two.get(name) for name in names) else DIFFERENT
