"""An answer that comes as a stream of lines: its pieces as they come, and the lines as one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stillhouse import GenerationError

__all__ = ["answer_of_lines", "piece_of_line"]

_TEXTS = ("content", "response", "thinking")
_LISTS = ("logprobs", "tool_calls")


def piece_of_line(line: Any) -> str | None:
    """Return the text that a line adds, of `api/chat` or `api/generate`.

    Raises:
        AttributeError, LookupError, TypeError: it adds none.
    """
    return line["message"]["content"] if "message" in line else line["response"]  # type: ignore[no-any-return]


def answer_of_lines(lines: Sequence[Any]) -> dict[str, Any]:
    """Join the lines of a stream into the answer that would have come in one piece.

    An error among them is the answer.

    Raises:
        ValueError: it is a stream of another API.
        GenerationError: the stream ended before its answer did.
    """
    answer: dict[str, Any] = {}
    message: dict[str, Any] = {}
    texts: dict[str, list[str]] = {name: [] for name in _TEXTS}
    for line in lines:
        if not isinstance(line, dict):
            continue
        if line.get("error"):
            return line
        if "done" not in line:
            raise ValueError("a line does not say whether it is the last")
        given = line.get("message")
        for whole, part in ((answer, line), (message, given if isinstance(given, dict) else {})):
            for name, value in part.items():
                if name in texts and isinstance(value, str):
                    texts[name].append(value)
                    whole[name] = ""
                elif name in _LISTS:
                    whole.setdefault(name, []).extend(value if isinstance(value, list) else ())
                elif value is not None:
                    whole[name] = value
    if answer.get("done") is not True:
        raise GenerationError("the stream ended before its answer did", kind="connection")
    for whole in (answer, message):
        whole.update({name: "".join(texts[name]) for name in _TEXTS if name in whole})
    return {**answer, "message": message} if "message" in answer else answer
