"""Copies of what others are shown, so that nothing that they do to it changes a run."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

__all__ = ["copy_of_error", "copy_of_output", "copy_of_plain"]


def copy_of_plain(value: Any) -> Any:
    """Return a copy of dicts, lists and tuples; whatever else is in them is the same."""
    kind = type(value)
    if kind is str:
        return value
    if kind is dict:
        return {key: copy_of_plain(item) for key, item in value.items()}
    if kind is list:
        return [copy_of_plain(item) for item in value]
    if kind is tuple:
        return tuple(copy_of_plain(item) for item in value)
    return value


def copy_of_output(output: Any) -> Any:
    """Return a copy of an output. Its log probabilities, of which there may be many, are the same."""
    return {key: value if key == "logprobs" else copy_of_plain(value) for key, value in output.items()}


def copy_of_error(error: Exception) -> Exception:
    """Return a copy of an error, or the error itself if its class cannot be copied."""
    with contextlib.suppress(Exception):
        copied: Exception = copy.copy(error)
        copied.__cause__, copied.__traceback__ = error.__cause__, error.__traceback__
        return copied
    return error
