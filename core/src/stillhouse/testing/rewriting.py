"""Answers of the author's own `respond`, changed: without their text, or with odd counts."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["with_counts", "without_text"]

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
    if isinstance(answer, bytes) and isinstance(instead, str):
        return answer.replace(json.dumps(text)[1:-1].encode(), instead.encode())
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
    if counts and isinstance(answer, (int, float)) and not isinstance(answer, bool):
        return instead
    return answer
