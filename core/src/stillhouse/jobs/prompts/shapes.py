"""What a row's prompt is by the names of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillhouse.jobs.prompts.chats import is_chat
from stillhouse.jobs.prompts.words import kind_of

__all__ = ["CHATS", "SHAPES", "shape_of", "text_in", "text_of"]

CHATS = ("messages", "conversations")
"""The columns that hold a chat."""

SHAPES = (*CHATS, "prompt", "instruction")
"""The columns that a prompt is made of, in the order in which they are looked for."""

# What data sets made with Alpaca's tools write where an instruction needs no input.
_NO_INPUT = "<noinput>"


def shape_of(columns: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns that make the prompt: the first of `SHAPES` with a value, and Alpaca's `input`.

    Raises:
        ValueError: there is none.
    """
    for name in SHAPES:
        if columns.get(name) is not None:
            return (name, "input") if name == "instruction" and _has_input(columns) else (name,)
    for name in SHAPES:
        if name in columns:
            raise ValueError(f"its {name} is null")
    raise ValueError(
        f"the row has no {', '.join(SHAPES[:-1])} or {SHAPES[-1]}; "
        f"its columns are: {', '.join(map(str, columns)) or 'none'}"
    )


def text_of(columns: Mapping[str, Any], shape: tuple[str, ...]) -> str:
    """Return the text of a shape that is no chat.

    Alpaca's two parts are sent as paragraphs. The frame around them in its own training, "Below is an
    instruction …", did for a base model what a chat template does for one that follows instructions.

    Raises:
        ValueError: a column is not a text.
    """
    return "\n\n".join([text_in(columns, name) for name in shape])


def text_in(columns: Mapping[str, Any], name: str) -> str:
    """Return the text in a column.

    Raises:
        ValueError: there is none.
    """
    value = columns.get(name)
    if isinstance(value, str):
        return value
    if value is None:
        raise ValueError(f"its {name} is null" if name in columns else f"the row has no {name}")
    hint = f"; --messages-column {name} takes it as a chat" if is_chat(value) else ""
    raise ValueError(f"the column {name} is {kind_of(value)}, not a text{hint}")


def _has_input(columns: Mapping[str, Any]) -> bool:
    value = columns.get("input")
    if isinstance(value, str):
        text = value.strip()
        return bool(text) and text.lower() != _NO_INPUT
    return value is not None
