"""`Row` and `RowFormatter`: a row of the input file, and the input that it becomes."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, cast

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.protocols import Row
from stillhouse.typing import FormattedInput, StandardInput

__all__ = ["Row", "RowFormatter", "digest_of", "invalid_row"]


def digest_of(content: bytes) -> int:
    """Return a signed 64-bit digest of the content of a row, which a database stores well."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), signed=True)


def invalid_row(place: int | str, problem: str) -> GenerationError:
    """Return the error of a row that cannot be used, with its line number or where else it is."""
    where = f"line {place}" if isinstance(place, int) else place
    return GenerationError(f"{where}: {problem}", kind="invalid_input", attempts=0)


class RowFormatter:
    """Turns a row's columns into an input.

    A template takes precedence; without one, the first of the columns `messages`, `prompt` and
    `instruction` is used.

    Args:
        template: a Jinja2 template over the row's columns.
        system: a system message to put before a chat that does not begin with one.
        raw: send the text as a raw prompt instead of as a user's message.

    Attributes:
        system: the system message.
        raw: whether the inputs are raw prompts.

    Raises:
        ConfigurationError: the template is not valid, or the arguments exclude each other.
    """

    def __init__(self, template: str | None = None, system: str | None = None, raw: bool = False) -> None:
        if raw and system is not None:
            raise ConfigurationError(
                "a raw prompt has no system message", hint="leave out --system, or --raw"
            )
        self._render = None if template is None else _compiled(template)
        self.system = system
        self.raw = raw

    def __call__(self, row: Row) -> FormattedInput | GenerationError:
        """Return the row's input, or the error that says why it has none."""
        if row.error is not None:
            return row.error
        try:
            return self._input(row.columns)
        except ValueError as error:
            return invalid_row(row.place, str(error))

    def _input(self, columns: dict[str, Any]) -> FormattedInput:
        if self._render is not None:
            return self._from_text(self._render(columns))
        if columns.get("messages") is not None:
            if self.raw:
                raise ValueError("the row has messages, which are no raw prompt; leave out --raw")
            return self._from_messages(columns["messages"])
        for name in ("prompt", "instruction"):
            text = columns.get(name)
            if text is not None:
                if not isinstance(text, str):
                    raise ValueError(f"the column {name} is {_kind(text)}, not a text")
                return self._from_text(text)
        raise ValueError(
            "the row has no messages, prompt or instruction; "
            f"its columns are: {', '.join(map(str, columns)) or 'none'}"
        )

    def _from_text(self, text: str) -> FormattedInput:
        if self.raw:
            return text
        return self._from_messages([{"role": "user", "content": text}])

    def _from_messages(self, messages: Any) -> FormattedInput:
        if isinstance(messages, str):  # a column of a format that has no lists
            try:
                messages = json.loads(messages)
            except ValueError:
                raise ValueError("the column messages is a text that is not valid JSON") from None
        if not isinstance(messages, list) or not messages:
            raise ValueError(f"the column messages is {_kind(messages)}, not a list of messages")
        for position, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise ValueError(f"message {position + 1} of the row is not an object with a role")
        messages = [_without_nulls(message) for message in messages]
        if self.system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.system}, *messages]
        return cast(StandardInput, messages)


def _without_nulls(value: Any) -> Any:
    """Drop null fields: a typed column gives every message the union of all fields."""
    if isinstance(value, dict):
        # An assistant's message that only calls tools has the content null.
        return {
            key: _without_nulls(item) for key, item in value.items() if item is not None or key == "content"
        }
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _compiled(template: str) -> Callable[[dict[str, Any]], str]:
    import jinja2
    import jinja2.sandbox

    # A template may come from another person, like the rows; it may read them and nothing more.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # a prompt is not HTML
    )
    try:
        compiled = environment.from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigurationError(f"the template is not valid: {error}") from None

    def render(columns: dict[str, Any]) -> str:
        try:
            return compiled.render(columns)
        except Exception as error:  # whatever a template does with a row's values
            raise ValueError(f"the template cannot be filled: {error}") from None

    return render


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "a number"
    if value == [] or value == {}:
        return "empty"
    return names.get(type(value), f"a {type(value).__name__}")
