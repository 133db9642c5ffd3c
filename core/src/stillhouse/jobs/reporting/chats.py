"""What was asked and answered in a row, as texts for people: bounded, and inert in whatever shows them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from stillhouse.errors import GenerationError
from stillhouse.inputs import split_input
from stillhouse.jobs.formats.writers import to_json
from stillhouse.typing import FormattedInput

__all__ = [
    "Answer", "Turn", "answers_in", "cut", "inert", "json_text", "messages_of", "text_of_part",
    "text_of_value", "turns_of", "without_data",
]  # fmt: skip

# What a page or a terminal would obey instead of show: controls but for the end of a line and a tab, marks of
# the direction of text, halves of pairs, and what Unicode promises to be no letter.
_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]"
)
_LINE_ENDS = re.compile("\r\n?|[\u2028\u2029]")

# The bytes of an image or a file within a text.
_DATA = re.compile(r"(data:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/=]{24})[A-Za-z0-9+/=]{40,}")

# A text is looked at up to here before it is cut.
_LOOK = 20_000

MAX_ANSWERS = 8
"""How many generations of a row are shown."""


class Turn(NamedTuple):
    """A message of a chat, or a raw prompt.

    Attributes:
        role: who says it.
        text: the text, with a note where it was cut.
    """

    role: str
    text: str


class Answer(NamedTuple):
    """A generation.

    Attributes:
        text: what was generated; empty if there is no text.
        finish: why it ended; empty if the backend does not say it.
        more: what else there is of it, such as its reasoning and its calls of tools.
    """

    text: str
    finish: str
    more: list[Turn]


def inert(text: str) -> str:
    """Return a text in which nothing but letters and the ends of lines is left; the others become names."""
    return _ACTIVE.sub(lambda found: f"[U+{ord(found[0]):04X}]", _LINE_ENDS.sub("\n", text))


def without_data(text: str) -> str:
    """Return a text in which the bytes of images and files are cut short."""
    return _DATA.sub(r"\1…", text)


def cut(text: str, limit: int) -> str:
    """Return a text in an inert form, and no longer than a limit, with a note of how much was left out."""
    shown = inert(without_data(text[:_LOOK]))
    left = len(text) - _LOOK if len(text) > _LOOK else 0
    if len(shown) <= limit and not left:
        return shown
    left += max(0, len(shown) - limit)
    return f"{shown[:limit]}… ({left:,} more characters)"


def turns_of(input: FormattedInput | GenerationError, limit: int) -> list[Turn]:
    """Return the messages of an input.

    Args:
        input: a chat or a raw prompt, either with a structured output, or the error of a row without one.
        limit: how many characters all of them may have, about.
    """
    if isinstance(input, GenerationError):
        return [Turn("not sent", cut(input.message, limit))]
    content, form = split_input(input)
    turns = messages_of(content)
    if form is not None:
        turns.append(Turn("structured output", json_text(form)))
    return list(_within(turns, limit))


def messages_of(content: Any) -> list[Turn]:
    """Return the messages of a chat, or a raw prompt, with their whole texts."""
    if isinstance(content, str):
        return [Turn("raw prompt", content)]
    return [turn for message in content for turn in _of_message(message)]


def answers_in(columns: Mapping[str, Any], limit: int) -> list[Answer]:
    """Return the generations of a row.

    Args:
        columns: what the output gets for the row.
        limit: how many characters all of them may have, about.
    """
    generations = columns.get("generations")
    if not isinstance(generations, list):
        return []
    found = []
    for place, text in enumerate(generations[:MAX_ANSWERS]):
        more = [
            Turn(name, text_of_value(item))
            for name in ("reasoning", "tool_calls")
            if (item := _at(columns.get(name), place))
        ]
        part = max(200, limit // max(1, min(len(generations), MAX_ANSWERS)))
        finish = _at(columns.get("finish_reasons"), place)
        found.append(
            Answer(
                cut(text if isinstance(text, str) else "", part),
                cut(finish, 40) if isinstance(finish, str) else "",
                list(_within(more, part // 2)),
            )
        )
        limit -= len(found[-1].text) + sum(len(turn.text) for turn in found[-1].more)
        if limit <= 0:
            break
    return found


def _of_message(message: Any) -> Iterable[Turn]:
    if not isinstance(message, Mapping):  # whatever a template or a column made
        yield Turn("message", text_of_value(message))
        return
    role, content = str(message.get("role", "")), message.get("content")
    parts = content if isinstance(content, list) else [content]
    text = "\n".join(text_of_part(part) for part in parts)
    if text or set(message) <= {"role", "content"}:
        yield Turn(role, text)
    for name, value in message.items():
        if name not in ("role", "content") and value is not None:
            yield Turn(f"{role}: {name}", text_of_part(value))


def text_of_part(value: Any) -> str:
    """Return the text of a part of a message; anything but a text as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.get("type") == "text" and set(value) == {"type", "text"}:
        return str(value["text"])
    return "" if value is None else json_text(value)


def json_text(value: Any) -> str:
    """Return a value as JSON; one that JSON cannot hold becomes the name of its type."""
    try:
        return to_json(value)
    except (ValueError, RecursionError):
        return f"<{type(value).__name__}>"


def text_of_value(value: Any) -> str:
    """Return a value as text: a text as it is, a number with all its digits, anything else as JSON.

    So nothing is rounded by a reader for which every number is a float of 64 bits.
    """
    return value if isinstance(value, str) else json_text(value)


def _at(items: Any, place: int) -> Any:
    return items[place] if isinstance(items, list) and place < len(items) else None


def _within(turns: Iterable[Turn], limit: int) -> Iterable[Turn]:
    """Cut the texts of turns, which share a limit: each gets a part of what the earlier ones left."""
    turns = list(turns)
    # Of a long chat, the beginning and the end say the most.
    if len(turns) > 12:
        left = len(turns) - 10
        turns = [*turns[:4], Turn("…", f"{left:,} messages are left out here"), *turns[-6:]]
    for place, turn in enumerate(turns):
        share = max(60, limit // (len(turns) - place))
        text = cut(turn.text, share)
        limit -= len(text)
        yield Turn(cut(turn.role, 60), text)
