"""`reason_problem`: what is wrong with a finish reason."""

from __future__ import annotations

from typing import Any

__all__ = ["FINISH_REASONS", "reason_problem"]

FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "refusal")
"""The words that every backend shares; a provider's own word stands for what is none of them."""

_OTHERS = {
    "stop": (
        "complete", "completed", "done", "end", "end_of_sequence", "end_of_text", "end_of_turn", "end_turn",
        "endoftext", "eos", "eos_token", "eot", "finish", "finish_reason_stop", "finished", "natural",
        "normal", "ok", "stop_sequence", "stop_str", "stop_string", "stop_token", "stop_word", "stopped",
        "succeeded", "success",
    ),
    "length": (
        "cut", "cut_off", "finish_reason_length", "finish_reason_max_tokens", "incomplete", "limit",
        "max_length", "max_new_tokens", "max_output_tokens", "max_token", "max_tokens", "maxtokens",
        "model_context_window_exceeded", "model_length", "token_limit", "truncated",
    ),
    "tool_calls": ("tool_call", "tool_use", "tooluse", "tools"),
    "content_filter": (
        "blocked", "content_filtered", "content_policy", "contentfilter", "filter", "filtered",
        "moderation", "safety",
    ),
    "refusal": ("declined", "refuse", "refused"),
}  # fmt: skip
_SHARED = {other: word for word, others in _OTHERS.items() for other in others}
_FAILURES = {
    "abort",
    "aborted",
    "cancelled",
    "canceled",
    "error",
    "exception",
    "failed",
    "failure",
    "timeout",
}


def reason_problem(reason: Any) -> str:
    """Return what is wrong with a finish reason; an empty string if nothing is."""
    if reason is None:
        return "a generation has no finish reason"
    if not isinstance(reason, str) or not reason.strip():
        return f"a finish reason is {reason!r}, and not a word"
    word = "_".join(reason.lower().replace("-", "_").split())
    if word in FINISH_REASONS and reason != word:
        return f"the finish reason {reason!r} is to be written {word!r}"
    if word in _SHARED:
        return f"the finish reason {reason!r} is called {_SHARED[word]!r}, whatever the provider calls it"
    if word in _FAILURES:
        return f"the finish reason {reason!r} is a failure: an input that failed is an error of a kind"
    if reason != reason.lower():
        return f"the finish reason {reason!r} is not in lower case"
    return ""
