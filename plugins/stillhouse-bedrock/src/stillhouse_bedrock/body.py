"""The body of a request: where each parameter is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillhouse import StandardInput
from stillhouse.http import RequestForm, effort_of
from stillhouse_bedrock.caching import add_cache_points
from stillhouse_bedrock.messages import request_messages
from stillhouse_bedrock.tools import tool_config

__all__ = ["check_given", "request_body"]

_EFFORTS = {level: level for level in ("low", "medium", "high", "max")}

# What parameters are called in `inferenceConfig`, in `additionalModelRequestFields`, and at the top.
_INFERENCE = {"max_new_tokens": "maxTokens", "temperature": "temperature", "top_p": "topP"}
_OF_MODEL = {"top_k": "top_k", "thinking": "thinking"}
_OWN = {
    "guardrail_config": "guardrailConfig",
    "performance_config": "performanceConfig",
    "request_metadata": "requestMetadata",
}


def check_given(arguments: Mapping[str, Any], llm: str) -> None:
    """Refuse parameters that no request can have, whatever its chat.

    Raises:
        ConfigurationError, UnsupportedError: there is one.
    """
    tool_config(arguments.get("tools"), arguments.get("tool_choice"), [], llm)
    effort = arguments.get("reasoning_effort")
    if effort is not None:
        effort_of(effort, _EFFORTS, llm)


def request_body(
    chat: StandardInput,
    form: RequestForm | None,
    arguments: Mapping[str, Any],
    *,
    llm: str,
    prompt_caching: bool,
) -> dict[str, Any]:
    """The body of a request for a chat; it has what was asked for, and nothing else.

    Raises:
        ConfigurationError, UnsupportedError: the API cannot be asked for this.
    """
    system, messages = request_messages(chat)
    given = {name: value for name, value in arguments.items() if value is not None}
    tools = tool_config(given.get("tools"), given.get("tool_choice"), messages, llm)
    if prompt_caching:
        add_cache_points(system, messages, tools)
    inference = _named(given, _INFERENCE)
    if "stop" in given:
        stop = given["stop"]
        inference["stopSequences"] = [stop] if isinstance(stop, str) else stop
    output = {} if form is None else dict(form.fields.get("outputConfig", {}))
    if "reasoning_effort" in given:
        output["effort"] = effort_of(given["reasoning_effort"], _EFFORTS, llm)
    parts = {
        "system": system,
        "inferenceConfig": inference,
        "toolConfig": tools,
        "outputConfig": output,
        "additionalModelRequestFields": _named(given, _OF_MODEL),
        "serviceTier": {"type": given["service_tier"]} if "service_tier" in given else None,
    }
    body = {"messages": messages, **{name: part for name, part in parts.items() if part}}
    body |= _named(given, _OWN)
    for name, value in (given.get("extra_body") or {}).items():
        own = body.get(name)
        body[name] = {**own, **value} if isinstance(own, dict) and isinstance(value, dict) else value
    return body


def _named(given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {theirs: given[ours] for ours, theirs in names.items() if ours in given}
