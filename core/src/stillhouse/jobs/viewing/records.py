"""What the page is given about a row, as JSON types: every number with more digits than a float is a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillhouse.jobs.reporting.chats import Turn, text_of_value
from stillhouse.jobs.reporting.units import duration, moment
from stillhouse.jobs.viewing.prompts import Prompts
from stillhouse.jobs.viewing.state import Result
from stillhouse.protocols import Row

__all__ = [
    "LIST_CHARACTERS",
    "ROW_CHARACTERS",
    "InputRecord",
    "cut",
    "input_record",
    "parts_of",
    "row_record",
    "whole_text",
]

MAX_ANSWERS = 64
"""How many answers of a row the page gets; the others can be opened one by one."""

MAX_NAMED = 2000
"""How many columns of a row the page gets."""

MAX_NAME_CHARACTERS = 200

LIST_CHARACTERS = 1200
CELL_CHARACTERS = 200
ROW_CHARACTERS = 20_000
"""How much of a text the page gets: in the list, of a column in the list, and where one row is shown."""

# Half a pair of surrogates cannot be sent as UTF-8.
_SENT = "backslashreplace"


@dataclass(frozen=True)
class InputRecord:
    """The prompt and the columns of a row, shortened.

    Attributes:
        digest: that of the row.
        facts: `place`, `prompt`, `problem`, `columns`, and how many `more` columns it has.
    """

    digest: int
    facts: dict[str, Any]


def cut(text: str, limit: int) -> dict[str, Any]:
    """Return a text, shortened, with its whole length."""
    return {"text": _sendable(text[:limit]), "length": len(text)}


def _sendable(text: str) -> str:
    return text.encode("utf-8", _SENT).decode()


def input_record(row: Row, prompts: Prompts, left_out: frozenset[str], limit: int = 0) -> InputRecord:
    """Return what the page gets about a row of the input.

    Args:
        row: the row.
        prompts: makes its prompt.
        left_out: columns that are not of the input.
        limit: how many characters of each text at most; 0 for as many as a list shows.
    """
    messages, problem = prompts.messages(row)
    columns = [(str(name), value) for name, value in row.columns.items() if name not in left_out]
    facts = {
        "place": _sendable(row.place[:MAX_NAME_CHARACTERS]),
        "prompt": [_message(message, limit or LIST_CHARACTERS) for message in messages[:MAX_ANSWERS]],
        "problem": None if problem is None else _sendable(problem[:LIST_CHARACTERS]),
        "columns": [
            {"name": _sendable(name[:MAX_NAME_CHARACTERS]), **_value(value, limit or CELL_CHARACTERS)}
            for name, value in columns[:MAX_NAMED]
        ],
        "more": max(0, len(columns) - MAX_NAMED),
    }
    return InputRecord(row.digest, facts)


def _message(message: Turn, limit: int) -> dict[str, Any]:
    return {"role": _sendable(message.role[:MAX_NAME_CHARACTERS]), **cut(message.text, limit)}


def _value(value: Any, limit: int) -> dict[str, Any]:
    kind = "null" if value is None else "text" if isinstance(value, str) else "json"
    return {"kind": kind, **cut(text_of_value(value), limit)}


def row_record(result: Result, given: Mapping[str, Any] | None, limit: int) -> dict[str, Any]:
    """Return what the page gets about a row.

    Args:
        result: what the state has of it.
        given: what `input_record` returned for it, or `None` where that is not known.
        limit: how many characters of each text at most.
    """
    columns = result.columns
    answers = columns.get("generations")
    reasons = columns.get("finish_reasons")
    answers = answers if isinstance(answers, list) else []
    reasons = reasons if isinstance(reasons, list) else []
    error = columns.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return {
        "row": result.row + 1,
        "state": result.state,
        "kind": None if result.kind is None else _sendable(str(result.kind)[:MAX_NAME_CHARACTERS]),
        "message": None if message is None else cut(text_of_value(message), limit),
        "answers": [
            _answer(answer, reasons[number] if number < len(reasons) else None, limit)
            for number, answer in enumerate(answers[:MAX_ANSWERS])
        ],
        "count": len(answers),
        "seconds": None if result.seconds is None else duration(result.seconds),
        "finished": moment(result.finished) if result.finished else None,
        "tokens": [None if count is None else f"{count:,}" for count in result.tokens],
        "input": given,
    }


def _answer(answer: Any, reason: Any, limit: int) -> dict[str, Any]:
    said = None if reason is None else _sendable(text_of_value(reason)[:MAX_NAME_CHARACTERS])
    if answer is None:
        return {"text": "", "length": 0, "none": True, "reason": said}
    return {**cut(text_of_value(answer), limit), "none": False, "reason": said}


def parts_of(result: Result) -> list[tuple[str, Any]]:
    """Return what else a result has, such as statistics and reasoning, by their names."""
    shown = ("generations", "finish_reasons", "error")
    return [(name, value) for name, value in result.columns.items() if name not in shown and value]


def whole_text(result: Result | None, row: Row | None, prompts: Prompts, part: Sequence[str]) -> str | None:
    """Return a text of a row as it is; `None` if the row does not have it.

    Args:
        result: what the state has of the row.
        row: the row of the input.
        prompts: makes its prompt.
        part: which: `("answer", N)`, `("prompt", N)`, `("column", NAME)`, `("part", NAME)` or `("error",)`.
    """
    kind, *rest = part
    name = rest[0] if rest else ""
    values: Any = None
    if kind == "answer" and result is not None:
        values = result.columns.get("generations")
    elif kind == "prompt" and row is not None:
        values = [message.text for message in prompts.messages(row)[0]]
    elif kind == "column" and row is not None:
        return text_of_value(row.columns[name]) if name in row.columns else None
    elif kind == "part" and result is not None:
        return text_of_value(result.columns[name]) if name in result.columns else None
    elif kind == "error" and result is not None:
        error = result.columns.get("error")
        return text_of_value(error.get("message")) if isinstance(error, dict) else None
    if not isinstance(values, list) or not name.isdecimal() or len(name) > 9 or int(name) >= len(values):
        return None
    return text_of_value(values[int(name)])
