"""`Reasons`: why generations ended and why rows failed, counted row by row.

What a backend says is not trusted: however many words and messages it has, and however long they are, they
take little room and a line each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from stillhouse.errors import ERROR_KINDS
from stillhouse.jobs.runs.said import MAX_CHARACTERS, in_a_line, masked, printable_line, shortened
from stillhouse.outputs import NOT_FINITE, count_of

__all__ = ["UNKNOWN", "Endings", "Failure", "Failures", "Reasons", "common_endings", "retried_kinds"]

# So many failures, and so many reasons to end, are told apart; the others are counted together.
MAX_FAILURES = 1000
MAX_ENDINGS = 100

# How many characters of a reason to end tell them apart, and how many an answer keeps.
ENDING_CHARACTERS = 24
ANSWER_CHARACTERS = 2000

# How many rows are named for each reason to fail.
MAX_EXAMPLES = 5

UNKNOWN = "unknown"
"""The reason to end where a backend gives none."""

OTHER = "other"

# The reasons that explain why there is no text, or whose number a user must see.
_NO_TEXT = frozenset({"tool_calls", "content_filter", "refusal"})
_SHOWN = _NO_TEXT | {"length"}


class Failure(NamedTuple):
    """Why some rows failed.

    Attributes:
        kind: the kind of their error.
        message: that of the first of them, in one line, shortened.
        rows: how many they are.
        example: the number of the first of them, from 1.
        examples: the numbers of the first few.
        seen: when the first and the last of them failed, in seconds since 1970; `None` where nobody noted it.
    """

    kind: str
    message: str
    rows: int
    example: int
    examples: tuple[int, ...] = ()
    seen: tuple[float, float] | None = None


class Failures:
    """Counts why rows failed, by their kind and message.

    Messages that differ in numbers, or in what stands in quotes, are the same.

    Attributes:
        rows: how many rows failed.
        kinds: how many, by the kind of their error.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.kinds: dict[str, int] = {}
        self._found: dict[tuple[str, str], list[int]] = {}  # the number of rows, and the first of them
        self._messages: dict[tuple[str, str], str] = {}
        self._seen: dict[tuple[str, str], tuple[float, float]] = {}

    def add(self, row: int, kind: str, message: str, finished: float | None = None) -> None:
        """Count a row.

        Args:
            row: its index.
            kind: of its error.
            message: likewise.
            finished: when it failed, in seconds since 1970.
        """
        self.rows += 1
        kind = kind if kind in ERROR_KINDS else UNKNOWN
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        message = shortened(message, 2 * MAX_CHARACTERS)
        reason = kind, masked(message)
        found = self._found.get(reason)
        if found is not None:
            found[0] += 1
            if len(found) <= MAX_EXAMPLES:
                found.append(row)
        elif len(self._found) < MAX_FAILURES:
            self._found[reason] = [1, row]
            self._messages[reason] = message
        else:
            return
        if finished is not None:
            first, last = self._seen.get(reason, (finished, finished))
            self._seen[reason] = min(first, finished), max(last, finished)

    def most_common(self, count: int) -> list[Failure]:
        """Return why rows failed, the most frequent first.

        Args:
            count: how many at most; where there are more kinds, the commonest of each kind.
        """
        ordered = sorted(self._found.items(), key=lambda item: (-item[1][0], item[1][1]))
        first = {reason[0]: reason for reason, _ in reversed(ordered)}  # of each kind
        others = (reason for reason, _ in ordered if first[reason[0]] != reason)
        shown = {*first.values(), *_some(others, count - len(first))}
        return [
            Failure(
                reason[0],
                in_a_line(self._messages[reason]),
                rows,
                found[0] + 1,
                tuple(row + 1 for row in found),
                self._seen.get(reason),
            )
            for reason, (rows, *found) in ordered
            if reason in shown
        ]

    def as_json(self) -> list[dict[str, Any]]:
        """Return every failure that is told apart, the most frequent first, as JSON types."""
        return [
            {
                "kind": failure.kind,
                "message": failure.message,
                "rows": failure.rows,
                "examples": list(failure.examples),
            }
            for failure in self.most_common(MAX_FAILURES)
        ]


class Endings:
    """Counts why the generations of rows without an error ended, and which have no text.

    Attributes:
        counts: how many ended for each reason; those for which none was given are `unknown`, and what is
            beyond `MAX_ENDINGS` is `other`.
        empty: how many have no text although they neither call a tool nor were refused or filtered.
    """

    __slots__ = ("counts", "empty")

    def __init__(self, counts: Mapping[str, int] | None = None, empty: int = 0) -> None:
        self.counts: dict[str, int] = dict(counts or {})
        self.empty = empty

    def add(self, output: Mapping[str, Any]) -> None:
        """Count the generations of a row: of an output, or of the columns that were made of it."""
        generations, reasons = output["generations"], output.get("finish_reasons")
        if type(reasons) is not list or len(reasons) != len(generations):
            reasons = [None] * len(generations)
        counts = self.counts
        for place, reason in enumerate(reasons):
            if type(reason) is not str or reason not in counts:
                reason = self._name(reason)
            counts[reason] = counts.get(reason, 0) + 1
            text = generations[place]
            is_empty = not text or (type(text) is str and text.isspace())
            if is_empty and reason not in _NO_TEXT and not _calls(output, place):
                self.empty += 1

    def _name(self, reason: Any) -> str:
        name = _ending(reason)
        return OTHER if name not in self.counts and len(self.counts) >= MAX_ENDINGS else name

    @property
    def total(self) -> int:
        """How many generations there are."""
        return sum(self.counts.values())

    @property
    def are_told(self) -> bool:
        """Whether the backend gives reasons at all."""
        return bool(self.counts.keys() - {UNKNOWN})

    def as_json(self) -> dict[str, int | None]:
        """Return how many answers there are, and how many of them were cut off, empty, refused or filtered.

        What the backend does not say is `None`.
        """
        told = self.are_told or not self.counts
        cut, refused, filtered = (
            self.counts.get(reason, 0) if told else None for reason in ("length", "refusal", "content_filter")
        )
        return {
            "total": self.total, "cut": cut, "empty": self.empty, "refused": refused, "filtered": filtered,
        }  # fmt: skip


class Reasons:
    """Counts the reasons of rows, which come in the order of the input.

    Attributes:
        endings: why the generations of rows without an error ended.
        failures: why rows failed.
        not_finite: how many rows have numbers that are none (NaN).
        answer: the index of the first row with an answer, and the beginning of that answer.
    """

    def __init__(self) -> None:
        self.endings = Endings()
        self.failures = Failures()
        self.not_finite = 0
        self.answer: tuple[int, str] | None = None

    def add(self, row: int, columns: Mapping[str, Any], finished: float | None = None) -> None:
        """Count a row.

        Args:
            row: its index.
            columns: the columns that the output gets for it.
            finished: when it was, in seconds since 1970.
        """
        error = columns["error"]
        if error is not None:
            self.failures.add(row, error["kind"], str(error["message"]), finished)
            return
        statistics = columns.get("statistics")
        if statistics and NOT_FINITE in statistics:
            self.not_finite += any(map(count_of, statistics[NOT_FINITE]))
        self.endings.add(columns)
        if self.answer is None:
            texts = (text for text in columns["generations"] if type(text) is str and text.strip())
            self.answer = next(((row, text[:ANSWER_CHARACTERS]) for text in texts), None)


def retried_kinds(kinds: Iterable[str]) -> list[str]:
    """Return the kinds that are worth trying again: a row that could not be read has to be changed first."""
    return sorted(kind for kind in kinds if kind != "invalid_input")


def common_endings(endings: Mapping[str, int], count: int) -> list[tuple[str, int]]:
    """Return so many reasons to end at most, the most frequent first; `other` are all that are left.

    Those that say that an answer was cut off, refused or filtered are never among these.
    """
    ordered = sorted(endings.items(), key=lambda item: (item[0] == OTHER, -item[1], item[0]))
    if len(ordered) > count:
        kept = [item for item in ordered if item[0] in _SHOWN]
        kept += _some((item for item in ordered if item[0] not in _SHOWN), count - 1 - len(kept))
        rest = sum(endings.values()) - sum(number for _, number in kept)
        return [*(item for item in ordered if item in kept), (OTHER, rest)]
    return ordered


def _some(items: Iterable[Any], count: int) -> list[Any]:
    return [item for item, _ in zip(items, range(count), strict=False)]


def _calls(output: Mapping[str, Any], place: int) -> bool:
    """Whether a generation calls a tool, whatever its reason to end is."""
    calls = output.get("tool_calls")
    return isinstance(calls, list) and place < len(calls) and bool(calls[place])


def _ending(reason: Any) -> str:
    if not isinstance(reason, str) or not reason.strip():
        return UNKNOWN
    text = printable_line(reason[: 4 * ENDING_CHARACTERS])
    return text if len(text) <= ENDING_CHARACTERS else f"{text[: ENDING_CHARACTERS - 1]}…"
