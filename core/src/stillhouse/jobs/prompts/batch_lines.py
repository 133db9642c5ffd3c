"""Lines of an OpenAI batch file: how they are recognised, and the input and the parameters in each.

A line is an object with `custom_id`, `method`, `url` and `body`, which is the body of a request to
`chat/completions`, `responses` or `completions`. Its parameters get the names that they have here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stillhouse.jobs.prompts.responses_items import chat_of, choice_of, form_of, tool_of

__all__ = ["CUSTOM_ID", "LINE", "BatchLine", "is_batch_line", "read_line"]

CUSTOM_ID = "custom_id"

LINE = ("body", CUSTOM_ID, "method", "url")
"""The columns of a line."""

# The parameters that have another name here.
_RENAMED = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "max_output_tokens": "max_new_tokens",
}

# What is no parameter of the generation, by the kind of the request.
_INPUTS = {
    "chat": frozenset({"messages"}),
    "responses": frozenset({"input", "instructions"}),
    "completions": frozenset({"prompt"}),
}


@dataclass
class BatchLine:
    """What a line asks for.

    Attributes:
        content: a list of messages, or a raw prompt.
        model: the model that it names, if it names one.
        num_generations: how many generations it asks for, if it says so.
        given: its parameters, by their names here.
        told: how an error names each of them.
    """

    content: Any
    model: Any = None
    num_generations: Any = None
    given: dict[str, Any] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)


def is_batch_line(columns: Mapping[str, Any]) -> bool:
    """Whether a row has the shape of a line of a batch file."""
    body = columns.get("body")
    if not isinstance(body, dict) or not (body.keys() & {"messages", "input", "prompt"}):
        return False
    return CUSTOM_ID in columns or (columns.keys() >= {"method", "url"})


def read_line(columns: Mapping[str, Any]) -> BatchLine:
    """Return what a line asks for.

    Raises:
        ValueError: it is no request for a text, or has another shape.
    """
    method, body = columns.get("method"), columns.get("body")
    if not isinstance(body, dict):
        raise ValueError("the line has no body, which a batch file has on every line")
    if method is not None and str(method).upper() != "POST":
        raise ValueError(f"its method is {method!r}, and text is generated with POST")
    kind = _kind(columns.get("url"), body)
    line = BatchLine(_content(kind, body), body.get("model"), body.get("n"))
    for name, value in body.items():
        if value is None or name in ("model", "n") or name in _INPUTS[kind]:
            continue
        for here, meant in _meant(kind, name, value):
            if here in line.given and line.given[here] != meant:
                raise ValueError(f"its body says {line.told[here]} and body.{name}, which is the same here")
            line.given[here], line.told[here] = meant, f"body.{name}"
    return line


def _kind(url: Any, body: Mapping[str, Any]) -> str:
    if url is None:
        return "chat" if "messages" in body else "responses" if "input" in body else "completions"
    path = str(url).partition("?")[0].rstrip("/")
    for end, kind in (
        ("chat/completions", "chat"),
        ("responses", "responses"),
        ("completions", "completions"),
    ):
        if path == end or path.endswith(f"/{end}"):
            return kind
    raise ValueError(f"its url is {str(url)[:80]!r}, at which no text is generated")


def _content(kind: str, body: Mapping[str, Any]) -> Any:
    if kind == "chat":
        messages = body.get("messages")
        if not isinstance(messages, list):
            raise ValueError("body.messages is not a list of messages")
        return messages
    if kind == "responses":
        return chat_of(body.get("input"), body.get("instructions"))
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise ValueError("the prompt in its body is not one text")
    return prompt


def _meant(kind: str, name: str, value: Any) -> list[tuple[str, Any]]:
    """Return what a parameter of a body is here: names and values."""
    if kind == "responses":
        if name == "text" and isinstance(value, dict):
            made = [("response_format", form_of(value["format"]))] if value.get("format") else []
            return made + [(key, item) for key, item in value.items() if key != "format"]
        if name == "reasoning" and isinstance(value, dict) and value.keys() == {"effort"}:
            return [("reasoning_effort", value["effort"])]
        if name == "tools" and isinstance(value, list):
            return [("tools", [tool_of(tool) for tool in value])]
        if name == "tool_choice":
            return [("tool_choice", choice_of(value))]
    if kind == "completions" and name == "logprobs" and type(value) is int:
        return [("logprobs", True), ("top_logprobs", value)]
    return [(_RENAMED.get(name, name), value)]
