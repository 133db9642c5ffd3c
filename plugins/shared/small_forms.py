"""Small forms for a model that can talk: what it says has them, or it was cut off."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jsonschema
from hypothesis import strategies as st

from stillhouse import LLM, GenerationError

__all__ = ["PROPERTIES", "assert_forms_hold"]

PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just({"type": "string", "maxLength": 4}),
        "age": st.builds(lambda top: {"type": "integer", "minimum": 0, "maximum": top}, st.integers(1, 99)),
        "kind": st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True).map(
            lambda listed: {"enum": listed}
        ),
        "good": st.just({"type": "boolean"}),
    },
).filter(lambda properties: 1 <= len(properties) <= 2)
"""The properties of an object, one or two."""


def assert_forms_hold(llm: LLM, chats: Sequence[Any], properties: dict[str, Any], **arguments: Any) -> None:
    """Every answer to the chats is an object with these properties, all of them, or was cut off."""
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    inputs: list[Any] = [(chat, {"format": "json", "schema": schema}) for chat in chats]
    for _, result in llm.iter_outputs(inputs, on_error="yield", temperature=1.2, **arguments):
        if isinstance(result, GenerationError):
            assert result.kind == "truncated"
        else:
            jsonschema.validate(json.loads(result["generations"][0] or ""), schema)
