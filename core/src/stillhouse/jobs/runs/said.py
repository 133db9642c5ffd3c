"""What a backend or a server says, in little room and in a line: for messages, and to tell them apart."""

from __future__ import annotations

import functools
import re

from stillhouse._execution.messages import printable

__all__ = ["MAX_CHARACTERS", "in_a_line", "masked", "printable_line", "shortened"]

MAX_CHARACTERS = 200
"""How many characters of a message tell it from others."""

# Numbers, and ids that have a digit in them; looked for from the beginning of each word, once.
_NUMBERED = re.compile(r"\b[^\W\d]*\d\w*")

# What stands in quotes; an apostrophe inside a word is none. Messages are cut before they are searched.
_QUOTED = re.compile(
    r"(?<![\w\\])(?P<quote>[\"'`])(?:\\.|(?!(?P=quote)).)*(?P=quote)(?!\w)|“[^”]*”|‘[^’]*’|«[^»]*»|„[^“”]*[“”]",
    re.DOTALL,
)

_SPACES = re.compile(r"\s+")


def masked(message: str) -> str:
    """Return what messages have in common that differ only in numbers or in what stands in quotes."""
    return _masked(message if len(message) <= 2 * MAX_CHARACTERS else shortened(message, 2 * MAX_CHARACTERS))


@functools.lru_cache(256)
def _masked(message: str) -> str:
    return _NUMBERED.sub("#", _QUOTED.sub("'…'", message))[:MAX_CHARACTERS]


def shortened(text: str, length: int) -> str:
    """Return a text of at most so many characters, with its end: that may say where something happened."""
    if len(text) <= length:
        return text
    end = length // 4
    return f"{text[: length - end - 3]} … {text[-end:]}"


def in_a_line(text: str) -> str:
    """Return a text of somebody else in one line of bounded length that a terminal only shows."""
    return shortened(printable_line(shortened(text, 2 * MAX_CHARACTERS)), MAX_CHARACTERS)


def printable_line(text: str) -> str:
    """Return a text in one line that a terminal only shows."""
    return printable(_SPACES.sub(" ", text).strip())
