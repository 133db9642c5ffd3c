"""Rows of a run to look at: some at random, failed, cut off, the longest, the slowest; as they were asked.

They are picked in one pass over the numbers of all rows, the same ones each time, and then read one by one.
"""

from __future__ import annotations

import heapq
import html
import json
import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stillhouse.jobs.reporting.chats import Answer, Turn, answers_in, cut, text_of_value, turns_of
from stillhouse.jobs.runs.prompted import Asked, RunInput
from stillhouse.jobs.runs.reasons import Failure
from stillhouse.jobs.store.database import DONE, FAILED
from stillhouse.jobs.store.seals import is_sealed

__all__ = ["FEW_ROWS", "MAX_SAMPLE_BYTES", "Sample", "Tally", "mixed", "read_samples", "samples_of"]

FEW_ROWS = 20
"""Of so many rows all are shown, instead of charts about them."""

MAX_RANDOM = 12
MAX_FAILED = 12
MAX_OTHERS = 4

# Characters of a sample. Where all samples together would have more bytes, as their letters are escaped in a
# page, each has fewer: so a page has less than 2 MB, whatever is in the rows.
PROMPT_CHARACTERS = 4000
ANSWER_CHARACTERS = 4000
COLUMN_CHARACTERS = 80
MAX_COLUMNS = 12
MAX_SAMPLE_BYTES = 1_000_000

# Multiplied by this, numbers of rows are in an order that has nothing to do with the input's: Knuth's.
_MIX, _BITS = 2654435761, 0xFFFFFFFF

_RESULT = 5


class Tally:
    """Counts rows by their session, and picks some, while somebody else goes through them.

    Args:
        starts: when each session began, in seconds since 1970.

    Attributes:
        done: how many rows each session finished.
        failed: how many failed in each.
        begun: when the first call of each began.
    """

    def __init__(self, starts: Sequence[float]) -> None:
        self._starts = starts
        self.done = [0] * max(1, len(starts))
        self.failed = [0] * max(1, len(starts))
        self.begun = [float("inf")] * max(1, len(starts))
        self._random: list[tuple[int, int]] = []
        self._longest: list[tuple[int, int]] = []
        self._shortest: list[tuple[int, int]] = []
        self._slowest: list[tuple[float, int]] = []

    def watch(
        self, records: Iterable[tuple[int, int, float, float | None, int | None, int | None]]
    ) -> Iterator[tuple[float, float | None, int | None, int | None, bool]]:
        """Pass rows on as `Timeline.add` takes them.

        Args:
            records: of each row its index, state, time, seconds, and input and output tokens.
        """
        starts, done, failed, begun = self._starts, self.done, self.failed, self.begun
        random, longest, shortest, slowest = self._random, self._longest, self._shortest, self._slowest
        worst, most, least, longest_wait = -1 << 62, -1, -1 << 62, 0.0
        for row, state, finished, seconds, inputs, outputs in records:
            session = max(0, bisect_right(starts, finished) - 1)
            has_failed = state != DONE
            (failed if has_failed else done)[session] += 1
            if seconds:
                if finished - seconds < begun[session]:
                    begun[session] = finished - seconds
                if seconds > longest_wait:
                    longest_wait = _keep(slowest, (seconds, -row), MAX_OTHERS)[0]
            place = -(row * _MIX & _BITS)
            if place > worst:
                worst = _keep(random, (place, row), MAX_RANDOM)[0]
            if outputs is not None and not has_failed:
                if outputs > most:
                    most = _keep(longest, (outputs, -row), MAX_OTHERS)[0]
                if -outputs > least:
                    least = _keep(shortest, (-outputs, -row), MAX_OTHERS)[0]
            yield finished, seconds, inputs, outputs, has_failed

    def picked(self) -> dict[str, list[int]]:
        """Return the numbers of the rows that were picked, by why they were."""
        longest, shortest = sorted(self._longest, reverse=True), sorted(self._shortest, reverse=True)
        if longest and longest[0][0] == -shortest[0][0]:  # all answers are of the same length
            longest = shortest = []
        return {
            "random": sorted(row for _, row in self._random),
            "longest": [-row for _, row in longest],
            "shortest": [-row for _, row in shortest],
            "slowest": [-row for _, row in sorted(self._slowest, reverse=True)],
        }


def _keep(heap: list[Any], item: tuple[Any, int], count: int) -> Any:
    """Keep the largest items; return the one that the next has to exceed, a tiny one if there is room."""
    if len(heap) < count:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)
    return heap[0] if len(heap) == count else (-1 << 62, 0)


@dataclass
class Sample:
    """A row to look at.

    Attributes:
        row: its number, from 1.
        why: why it was picked.
        place: where it is in the input; empty where that is not known.
        seconds: from its submission to its answer; `None` where that is not known.
        input_tokens: as far as the backend reported them.
        output_tokens: likewise.
        error: the kind and the message of its error, or `None`.
        turns: what was asked; empty where that cannot be read again.
        answers: what was generated.
        columns: its other columns, their names and values.
        more_columns: how many columns are not among these.
    """

    row: int
    why: list[str]
    place: str = ""
    seconds: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    error: tuple[str, str] | None = None
    turns: list[Turn] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    columns: list[tuple[str, str]] = field(default_factory=list)
    more_columns: int = 0

    @property
    def page_bytes(self) -> int:
        """How many bytes its texts have in a page."""
        texts = [text for turn in self.turns for text in turn]
        for answer in self.answers:
            texts += [answer.text, *(text for turn in answer.more for text in turn)]
        texts += [text for column in self.columns for text in column]
        return sum(len(html.escape(text).encode()) for text in texts)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "row": self.row, "why": self.why, "place": self.place or None, "seconds": self.seconds,
            "input_tokens": self.input_tokens, "output_tokens": self.output_tokens,
            "error": None if self.error is None else {"kind": self.error[0], "message": self.error[1]},
            "prompt": [turn._asdict() for turn in self.turns] or None,
            "answers": [
                {"text": answer.text, "finish_reason": answer.finish or None,
                 "more": [turn._asdict() for turn in answer.more]}
                for answer in self.answers
            ],
            "columns": dict(self.columns), "more_columns": self.more_columns,
        }  # fmt: skip


def samples_of(
    connection: sqlite3.Connection, tally: Tally, failures: Sequence[Failure], cut_off: int, source: RunInput
) -> list[Sample]:
    """Read the rows to look at.

    Args:
        connection: the run's database.
        tally: saw all rows.
        failures: why rows failed, the commonest reason first.
        cut_off: how many generations were cut off.
        source: reads the prompts.
    """
    rows = sum(tally.done) + sum(tally.failed)
    reasons: dict[int, list[str]] = {}
    if rows <= FEW_ROWS:
        query = "SELECT row, state FROM rows WHERE state != 0 ORDER BY row"
        for row, state in connection.execute(query):
            reasons[row] = ["failed"] if state == FAILED else []
    else:
        picked = {"random": tally.picked()["random"], "failed": _failed(failures)}
        picked["cut off"] = _cut_off(connection) if cut_off else []
        picked |= tally.picked()
        for why, numbers in picked.items():
            for row in numbers:
                reasons.setdefault(row, []).append(why)
    return read_samples(connection, reasons, source)


def read_samples(
    connection: sqlite3.Connection,
    reasons: Mapping[int, list[str]],
    source: RunInput,
    max_bytes: int = MAX_SAMPLE_BYTES,
) -> list[Sample]:
    """Read some rows.

    Args:
        connection: the run's database.
        reasons: the indexes of the rows, each with why it was picked.
        source: reads the prompts.
        max_bytes: about how many bytes they may have in a page, all together.
    """
    records = {}
    for row in reasons:
        record = connection.execute("SELECT * FROM rows WHERE row = ?", (row,)).fetchone()
        if record is not None and is_sealed("rows", record):  # a row that is damaged says nothing
            records[row] = record
    asked = source.asked({row: record[1] for row, record in records.items()})

    def samples(share: float) -> list[Sample]:
        return [_sample(record, reasons[row], asked.get(row), share) for row, record in records.items()]

    found = samples(1.0)
    size = sum(sample.page_bytes for sample in found)
    return found if size <= max_bytes else samples(max_bytes / size)


def mixed(row: int) -> int:
    """Return the place of a row in an order that has nothing to do with the input's."""
    return row * _MIX & _BITS


def _failed(failures: Sequence[Failure]) -> list[int]:
    """Return rows that failed: one for each reason, and then the next ones."""
    found: list[int] = []
    for turn in range(max((len(failure.examples) for failure in failures), default=0)):
        found += [failure.examples[turn] - 1 for failure in failures if turn < len(failure.examples)]
    return found[:MAX_FAILED]


def _cut_off(connection: sqlite3.Connection) -> list[int]:
    """Return the first rows with an answer that was cut off."""
    # Within a text of the result, the quotes would be escaped.
    query = "SELECT row, result FROM rows WHERE state = ? AND instr(result, '\"length\"')"
    found: list[int] = []
    for row, result in connection.execute(query, (DONE,)):
        reasons = json.loads(result).get("finish_reasons")
        if isinstance(reasons, list) and "length" in reasons:
            found.append(row)
            if len(found) == MAX_OTHERS:
                break
    return found


def _sample(record: tuple[Any, ...], why: list[str], asked: Asked | None, share: float) -> Sample:
    columns = json.loads(record[_RESULT])
    error = columns.get("error")
    sample = Sample(
        record[0] + 1,
        why,
        seconds=record[7],
        input_tokens=record[8],
        output_tokens=record[9],
        error=(cut(str(error["kind"]), 40), cut(str(error["message"]), 600)) if error else None,
        answers=answers_in(columns, int(share * ANSWER_CHARACTERS)),
    )
    if asked is not None:
        sample.place = cut(asked.place, 100)
        sample.turns = turns_of(asked.input, int(share * PROMPT_CHARACTERS))
        others = [name for name in asked.row.columns if name not in asked.used]
        for name in others[:MAX_COLUMNS]:
            sample.columns.append((cut(name, COLUMN_CHARACTERS), _value(asked.row.columns[name])))
        sample.more_columns = len(others) - len(sample.columns)
    return sample


def _value(value: Any) -> str:
    """Return the value of a column as people read it, every digit of a number included."""
    return cut(text_of_value(value), COLUMN_CHARACTERS)
