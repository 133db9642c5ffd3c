"""Outputs as they are stored on disk: JSON, so that reading them runs no code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from stillhouse import GenerateOutput

__all__ = ["decode", "encode"]

_SCALARS = frozenset({str, int, float, bool, type(None)})

_encode = json.JSONEncoder(separators=(",", ":")).encode


def encode(output: GenerateOutput) -> bytes | None:
    """An output as JSON, or `None` if what is read back would not be the same, types included."""
    try:
        return _encode(output).encode("ascii") if _is_plain(output) else None
    except (ValueError, RecursionError):  # a list inside itself, an integer of thousands of digits
        return None


def decode(value: bytes, num_generations: int) -> GenerateOutput | None:
    """A new output from what `encode` gave, or `None` if it is not readable as one."""
    try:
        output = json.loads(value)
    except ValueError:
        return None
    generations = output.get("generations") if isinstance(output, dict) else None
    if not isinstance(generations, list) or len(generations) != num_generations:
        return None
    return cast("GenerateOutput", output)


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str:
                return False
        value = value.values()
    elif kind is not list:
        return kind in _SCALARS
    for item in value:  # noqa: SIM110  -- a generator costs as much as the check
        if type(item) not in _SCALARS and not _is_plain(item):
            return False
    return True
