"""`Reasons`: why rows failed, most often first, in few words."""

from __future__ import annotations

import functools
import json
import re
import sqlite3
import sys
from typing import NamedTuple

from stillhouse.jobs.store.database import FAILED

__all__ = ["Reason", "Reasons", "read_reasons"]

# How many reasons are told apart; beyond them, new ones are not counted.
MAX_REASONS = 1000

# How many characters of a message tell reasons apart.
MAX_CHARACTERS = 200

# Numbers, and ids that have a digit in them.
_NUMBERED = re.compile(r"\w*\d\w*")

_SPACES = re.compile(r"[^\S ]+|\s{2,}")


class Reason(NamedTuple):
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
    """Counts errors by their kind and message; messages that differ in numbers are the same."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[int]] = {}
        self._messages: dict[tuple[str, str], str] = {}

    def add(self, kind: str, message: str, row: int) -> None:
        """Count the error of a row.

        Args:
            kind: its kind.
            message: its message.
            row: the index of the row.
        """
        reason = kind, _masked(message[: 2 * MAX_CHARACTERS])
        found = self._found.get(reason)
        if found is not None:
            found[0] += 1
        elif len(self._found) < MAX_REASONS:
            self._found[reason] = [1, row]
            self._messages[reason] = message[: 2 * MAX_CHARACTERS]

    def most_common(self, count: int) -> list[Reason]:
        """Return so many reasons at most, the most frequent first."""
        found = sorted(self._found.items(), key=lambda item: -item[1][0])[:count]
        return [
            Reason(reason[0], _short(self._messages[reason]), rows, row + 1) for reason, (rows, row) in found
        ]


def read_reasons(connection: sqlite3.Connection, limit: int | None = None) -> Reasons:
    """Count the errors of a run's failed rows, those of earlier processes included.

    Args:
        connection: the database of the run.
        limit: count only the rows below it.
    """
    reasons = Reasons()
    query = "SELECT kind, result, row FROM rows WHERE kind IS NOT NULL AND state = ? AND row < ?"
    for kind, text, row in connection.execute(query, (FAILED, sys.maxsize if limit is None else limit)):
        error = json.loads(text)["error"] or {}
        reasons.add(kind, str(error.get("message")), row)
    return reasons


@functools.lru_cache(256)
def _masked(message: str) -> str:
    return _NUMBERED.sub("#", message)[:MAX_CHARACTERS]


def _short(message: str) -> str:
    """Return a message in one line that a terminal only shows."""
    text = _SPACES.sub(" ", message).strip()
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} …"
