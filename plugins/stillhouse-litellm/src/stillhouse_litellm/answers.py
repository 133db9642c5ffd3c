"""From LiteLLM's answers, which have OpenAI's shape, to outputs."""

from __future__ import annotations

from typing import Any

from stillhouse import GenerateOutput
from stillhouse.http import Failure
from stillhouse.outputs import count_of
from stillhouse_openai.wire import detail, output_of

__all__ = ["failure_in", "litellm_output"]

# LiteLLM says "stop" for these too, where the provider's word is one that it does not know or for a failure.
_STOPPED = frozenset({
    "complete", "completed", "end_turn", "eos", "eos_token", "finish_reason_unspecified", "stop",
    "stop_sequence",
})  # fmt: skip
_FAILED = frozenset({"error", "insufficient_system_resource", "network_error", "timeout"})


def failure_in(answer: dict[str, Any]) -> Failure | None:
    """Return the failure that an answer is in spite of its status, or `None`."""
    for choice in _dicts(answer.get("choices")):
        reason = _reason(choice)
        if reason in _FAILED:
            return Failure("server", f"the provider ended the answer with {reason!r}", retried=True)
    return None


def litellm_output(answer: dict[str, Any]) -> GenerateOutput:
    """Return the output of an answer, as JSON types.

    Raises:
        GenerationError: it has another shape.
    """
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    if not usage.get("prompt_tokens") and not usage.get("completion_tokens"):
        usage = {}  # LiteLLM writes zeros where the provider says nothing
    choices = [{**choice, "finish_reason": _reason(choice)} for choice in _dicts(answer.get("choices"))]
    output = output_of({**answer, "choices": choices, "usage": usage}, chat=True)
    written = usage.get("cache_creation_input_tokens")
    if written is None:
        written = detail(usage, "prompt_tokens_details", "cache_creation_tokens")
    if (count := count_of(written)) is not None:
        output["statistics"]["cache_creation_tokens"] = [count]
    thoughts = [_thinking_blocks(choice) for choice in choices]
    if any(thoughts):
        output["thinking_blocks"] = thoughts  # type: ignore[typeddict-unknown-key]
    return output


def _dicts(items: Any) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _reason(choice: dict[str, Any]) -> Any:
    """Return the finish reason of a choice: the provider's own word where LiteLLM's hides it."""
    reason, fields = choice.get("finish_reason"), choice.get("provider_specific_fields")
    native = fields.get("native_finish_reason") if isinstance(fields, dict) else None
    if not isinstance(native, str) or not native:
        return reason
    native = native.lower()
    hides = (reason == "stop" and native not in _STOPPED) or native == "refusal"
    return native if hides else reason


def _thinking_blocks(choice: dict[str, Any]) -> list[Any] | None:
    message = choice.get("message")
    blocks = message.get("thinking_blocks") if isinstance(message, dict) else None
    return blocks if isinstance(blocks, list) and blocks else None
