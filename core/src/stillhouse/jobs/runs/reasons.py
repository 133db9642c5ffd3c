"""`Reasons`: why generations ended and why rows failed, counted while the output is written.

What a backend says is not trusted: however many words and messages it has, and however long they are, they
take little room and a line each.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from stillhouse.errors import ERROR_KINDS
from stillhouse.outputs import NOT_FINITE, count_of

__all__ = ["UNKNOWN", "Failure", "Reasons", "common_endings"]

# So many failures, and so many reasons to end, are told apart; the others are counted together.
MAX_FAILURES = 1000
MAX_ENDINGS = 100

# How many characters of a message, and of a reason to end, tell them apart.
MAX_CHARACTERS = 200
ENDING_CHARACTERS = 24

UNKNOWN = "unknown"
"""The reason to end where a backend gives none."""

OTHER = "other"

# Numbers, and ids that have a digit in them; looked for from the beginning of each word, once.
_NUMBERED = re.compile(r"\b[^\W\d]*\d\w*")

_SPACES = re.compile(r"\s+")


class Failure(NamedTuple):
    """Why some rows failed.

    Attributes:
        kind: the kind of their error.
        message: that of the first of them, in one line, shortened.
        rows: how many they are.
        example: the number of the first of them, from 1.
    """

    kind: str
    message: str
    rows: int
    example: int


class Reasons:
    """Counts the reasons of rows, which come in the order of the input.

    Failures are told apart by their kind and message; messages that differ in numbers are the same.

    Attributes:
        endings: how many generations of rows without an error ended for each reason; those for which
            none was given are `unknown`, and what is beyond `MAX_ENDINGS` is `other`.
        not_finite: how many rows have numbers that are none (NaN).
        failures: how many rows failed.
    """

    def __init__(self) -> None:
        self.endings: dict[str, int] = {}
        self.not_finite = 0
        self.failures = 0
        self._found: dict[tuple[str, str], list[int]] = {}
        self._messages: dict[tuple[str, str], str] = {}

    def add(self, row: int, columns: Mapping[str, Any]) -> None:
        """Count a row.

        Args:
            row: its index.
            columns: the columns that the output gets for it.
        """
        error = columns["error"]
        if error is not None:
            self._add_failure(row, error["kind"], str(error["message"]))
            return
        statistics = columns["statistics"]
        if statistics and NOT_FINITE in statistics:
            self.not_finite += any(map(count_of, statistics[NOT_FINITE]))
        generations, reasons, endings = columns["generations"], columns["finish_reasons"], self.endings
        if not isinstance(reasons, list) or len(reasons) != len(generations):
            reasons = [None] * len(generations)
        for reason in reasons:
            if type(reason) is str and reason in endings:
                endings[reason] += 1
            else:
                name = _ending(reason)
                if name not in endings and len(endings) >= MAX_ENDINGS:
                    name = OTHER
                endings[name] = endings.get(name, 0) + 1

    def _add_failure(self, row: int, kind: str, message: str) -> None:
        self.failures += 1
        kind = kind if kind in ERROR_KINDS else UNKNOWN
        reason = kind, _masked(message[: 2 * MAX_CHARACTERS])
        found = self._found.get(reason)
        if found is not None:
            found[0] += 1
        elif len(self._found) < MAX_FAILURES:
            self._found[reason] = [1, row]
            self._messages[reason] = message[: 2 * MAX_CHARACTERS]

    def most_common_failures(self, count: int) -> list[Failure]:
        """Return why rows failed, the most frequent first.

        Args:
            count: how many failures at most; where there are more kinds, the commonest of each kind.
        """
        ordered = sorted(self._found.items(), key=lambda item: (-item[1][0], item[1][1]))
        first = {reason[0]: reason for reason, _ in reversed(ordered)}  # of each kind
        others = (reason for reason, _ in ordered if first[reason[0]] != reason)
        shown = {*first.values(), *_some(others, count - len(first))}
        return [
            Failure(reason[0], _short(self._messages[reason]), rows, row + 1)
            for reason, (rows, row) in ordered
            if reason in shown
        ]


def common_endings(endings: Mapping[str, int], count: int) -> list[tuple[str, int]]:
    """Return so many reasons to end at most, the most frequent first; `other` are all that are left."""
    ordered = sorted(endings.items(), key=lambda item: (item[0] == OTHER, -item[1], item[0]))
    if len(ordered) > count:
        rest = sum(number for _, number in ordered[count - 1 :])
        ordered = [*ordered[: count - 1], (OTHER, rest)]
    return ordered


def _some(items: Iterable[Any], count: int) -> list[Any]:
    return [item for item, _ in zip(items, range(count), strict=False)]


def _ending(reason: Any) -> str:
    if not isinstance(reason, str) or not reason.strip():
        return UNKNOWN
    text = _printable(reason[: 4 * ENDING_CHARACTERS])
    return text if len(text) <= ENDING_CHARACTERS else f"{text[: ENDING_CHARACTERS - 1]}…"


@functools.lru_cache(256)
def _masked(message: str) -> str:
    return _NUMBERED.sub("#", message)[:MAX_CHARACTERS]


def _short(message: str) -> str:
    text = _printable(message)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} …"


def _printable(text: str) -> str:
    """Return a text in one line that a terminal only shows."""
    text = _SPACES.sub(" ", text).strip()
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
