"""Structured output with a mode, through instructor itself and over our own transport."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from stillhouse import ConfigurationError
from stillhouse_anthropic import AnthropicLLM

from .test_llm import USER, message

pytest.importorskip("instructor", reason="pip install 'stillhouse-anthropic[instructor]'")
pytest.importorskip("anthropic", reason="pip install 'stillhouse-anthropic[instructor]'")

SCHEMA = {"type": "object", "title": "Leaf", "properties": {"a": {"type": "integer", "maximum": 9}}}
FORM = {"format": "json", "schema": SCHEMA, "mode": "tool_call"}


def called(**arguments: Any) -> Any:
    use = {"type": "tool_use", "id": "c", "name": "Leaf", "input": arguments}
    return message(use, stop_reason="tool_use")


def test_instructor_retries_an_invalid_answer_and_counts_all_tokens(
    script: Any, make: Callable[..., AnthropicLLM]
) -> None:
    script.reply(called(a=10))
    script.reply(called(a=3))
    chat: Any = [{"role": "system", "content": "Be brief."}, USER]
    (output,) = make(structured_output=FORM).generate_outputs([chat])
    assert json.loads(output["generations"][0] or "") == {"a": 3}
    assert output["finish_reasons"] == ["stop"]
    assert output["statistics"]["input_tokens"] == [10]
    first, second = (request.body for request in script.requests)
    assert first["tools"][0]["input_schema"]["properties"] == SCHEMA["properties"]
    assert "Be brief." in json.dumps(first["system"])
    assert "output_config" not in first
    assert "10 is greater than the maximum of 9" in json.dumps(second["messages"])


def test_a_mode_of_another_provider_is_refused_when_it_is_set() -> None:
    with pytest.raises(ValueError, match="no mode 'tools_strict' for anthropic"):
        AnthropicLLM(model="m", structured_output={**FORM, "mode": "tools_strict"})
    with pytest.raises(ConfigurationError, match="no mode"):
        AnthropicLLM.form_of({**FORM, "mode": "tools"})
