"""Answers of the author's own `respond`, changed: without their text, with odd counts, or with an error.

An answer in bytes is changed where it is JSON, as a whole or in its lines or events. What is in another
format stays as it is: the kit does not know how to write it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

__all__ = ["unescaped", "with_counts", "with_error", "without_text"]

# What counts something in an answer; another number may be a state that somebody waits for.
_COUNTS = re.compile(r"token|usage|count|billed", re.IGNORECASE)


def without_text(answer: Any, text: str, instead: Any) -> Any:
    """Return an answer with something else wherever it has a text that holds this one."""
    if isinstance(answer, str):
        return instead if text in answer else answer
    if isinstance(answer, dict):
        return {key: without_text(item, text, instead) for key, item in answer.items()}
    if isinstance(answer, list):
        return [without_text(item, text, instead) for item in answer]
    if isinstance(answer, bytes):
        changed, is_json = _in_json(answer, lambda item: without_text(item, text, instead))
        if is_json or not isinstance(instead, str) or not _is_text(answer):
            return changed
        return answer.replace(text.encode(), instead.encode())
    return answer


def with_counts(answer: Any, instead: Any, counts: bool = False) -> Any:
    """Return an answer with something else in place of every count.

    Args:
        answer: the answer.
        instead: what stands there.
        counts: whether the answer is itself part of something that counts.
    """
    if isinstance(answer, dict):
        return {
            key: with_counts(item, instead, counts or bool(_COUNTS.search(str(key))))
            for key, item in answer.items()
        }
    if isinstance(answer, list):
        return [with_counts(item, instead, counts) for item in answer]
    if isinstance(answer, bytes):
        return _in_json(answer, lambda item: with_counts(item, instead, counts))[0]
    if counts and isinstance(answer, (int, float)) and not isinstance(answer, bool):
        return instead
    return answer


def with_error(answer: Any, error: Any) -> Any:
    """Return an answer with an error at its top, or at that of the last object of a stream."""
    if isinstance(answer, dict):
        return {**answer, "error": error}
    if not isinstance(answer, bytes):
        return answer
    pieces = [answer] if _loads(answer) is not None else answer.split(b"\n")
    for place in reversed(range(len(pieces))):
        pieces[place], is_json = _in_json(pieces[place], lambda item: with_error(item, error))
        if is_json:
            break
    return b"\n".join(pieces)


def unescaped(answer: bytes) -> bytes:
    """Return an answer with characters other than ASCII as they are, where it has them as escapes of JSON."""
    lines = answer.split(b"\n")
    for place, line in enumerate(lines):
        start = b"data: " if line.startswith(b"data:") else b""
        item = _loads(line.removeprefix(b"data:"))
        if item is not None:
            lines[place] = start + json.dumps(item, ensure_ascii=False).encode()
    return b"\n".join(lines)


def _in_json(raw: bytes, change: Callable[[Any], Any]) -> tuple[bytes, bool]:
    """Return bytes with each JSON object or list in them changed, and whether there is one."""
    pieces = [raw] if _loads(raw) is not None else raw.split(b"\n")
    is_json = False
    for place, piece in enumerate(pieces):
        item = _loads(piece.removeprefix(b"data:"))
        if item is None:
            continue
        is_json = True
        before, after = json.dumps(item), json.dumps(change(item))
        if after != before:
            pieces[place] = (b"data: " if piece.startswith(b"data:") else b"") + after.encode()
    return b"\n".join(pieces), is_json


def _loads(raw: bytes) -> Any:
    """Return the object or the list that this is, or `None`."""
    try:
        item = json.loads(raw)
    except ValueError:
        return None
    return item if isinstance(item, (dict, list)) else None


def _is_text(raw: bytes) -> bool:
    try:
        return all(char.isprintable() or char.isspace() for char in raw.decode())
    except UnicodeDecodeError:
        return False
