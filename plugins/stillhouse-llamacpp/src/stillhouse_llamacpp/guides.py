"""Guides: what makes the engine answer in a form, and what holds the answer to it.

The engine compiles a grammar with LLGuidance, and *drops it without a word* when it cannot: the
answer is then free text. So there are three lines of defence. A JSON schema may use the keywords
alone that are known to be enforced; every guide is tried on the loaded engine before it is used
(`probe`); and every answer is checked (`check`).
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import Any

from stillhouse.errors import ConfigurationError, UnsupportedError
from stillhouse.structured import AnswerForm, answer_problem, check_schema, normalize_structured_output

__all__ = ["KEYWORDS", "SENTINEL", "Guide", "guide_for"]

KEYWORDS = frozenset(
    {
        "$ref", "additionalItems", "additionalProperties", "allOf", "anyOf", "const", "enum",
        "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maxLength",
        "maxProperties", "maximum", "minItems", "minLength", "minProperties", "minimum", "multipleOf",
        "oneOf", "pattern", "patternProperties", "prefixItems", "properties", "required", "type",
    }
)  # fmt: skip
"""The keywords of JSON Schema that the engine enforces. It ignores any that it does not know."""

SENTINEL = "QZQZ"
"""What a probe must answer with, and no model would by itself."""

_HEAD = "%llguidance {}\n"
_LLM = "LlamaCppLLM"
_ESCAPES = {"/": r"\/", "\n": r"\n", "\r": r"\r"}


@dataclass(frozen=True)
class Guide(AnswerForm):
    """The form that an answer must have, for the engine.

    Attributes:
        body: the form, as an expression of a grammar.
    """

    body: str

    @property
    def grammar(self) -> str:
        """The grammar of an answer."""
        return f"{_HEAD}start: {self.body}"

    @property
    def probe(self) -> str:
        """A grammar whose answer begins with `SENTINEL`, unless the engine drops it."""
        return f'{_HEAD}start: "{SENTINEL}" answer\nanswer: {self.body}'

    def refusal(self) -> UnsupportedError:
        """The error for a guide that the engine drops."""
        hints = {
            "json": "it may have a reference that leads nowhere, a format or a pattern that is not known, "
            "bounds that exclude each other, or a oneOf with overlapping branches",
            "regex": "it has no look-around, no back-reference, no \\b and no \\Z; a whole answer is matched",
            "choice": "remove empty choices",
        }
        return UnsupportedError(
            f"{_LLM} cannot honour this structured output ({self.format}): the engine does not take it",
            hint=hints[self.format],
        )


def guide_for(structured_output: Any) -> Guide:
    """The guide for a structured output, in any of its shapes; equal ones give the same guide.

    `mode` and `max_retries`, which are for backends that ask again, mean nothing here.

    Raises:
        ConfigurationError: it has another shape, or the schema is not valid.
        UnsupportedError: the schema has a keyword that the engine does not enforce.
    """
    normal = normalize_structured_output(structured_output)
    assert normal is not None
    try:
        return _guide(normal["format"], json.dumps(normal["schema"]), normal.get("whitespace_pattern"))
    except TypeError as error:
        raise ConfigurationError(f"the schema is not JSON: {error}") from None


@functools.lru_cache(maxsize=256)
def _guide(format: str, schema: str, whitespace: str | None) -> Guide:
    content = json.loads(schema)
    if format == "json":
        check_schema(content, KEYWORDS, _LLM)
        body = _json_body(content, whitespace)
    elif format == "regex":
        body = f"/{_expression(content)}/"
    else:
        body = " | ".join(json.dumps(choice) for choice in content)
    return Guide(format, answer_problem({"format": format, "schema": content}), body)  # type: ignore[typeddict-item]


def _expression(pattern: str) -> str:
    """A pattern as it stands between the slashes of a grammar.

    A slash would end the expression and a line break the line. `\\d` would also take the digits of
    every other script, and a small model does write them; those of ASCII are what is meant.
    """
    in_class = False

    def rewritten(match: re.Match[str]) -> str:
        nonlocal in_class
        part = match[0]
        if part == "[":
            in_class = True
        elif part == "]":
            in_class = False
        elif part == r"\d":
            return "0-9" if in_class else "[0-9]"
        return _ESCAPES.get(part[-1], part)

    return re.sub(r"(?s)\\.|[/\n\r\[\]]", rewritten, pattern)


def _json_body(schema: dict[str, Any], whitespace: str | None) -> str:
    # Free white space lets a small model write nothing else until it is cut off.
    spacing = {"whitespace_flexible": False} if whitespace is None else {"whitespace_pattern": whitespace}
    return "%json " + json.dumps({**schema, "x-guidance": spacing})
