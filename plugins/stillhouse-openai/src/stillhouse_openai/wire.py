"""From the API's answers to a `GenerateOutput`."""

from __future__ import annotations

from typing import Any

from stillhouse import GenerateOutput, GenerationError, Logprob, prepare_output

__all__ = ["chat_output", "completion_output", "total_tokens"]


def chat_output(answer: Any) -> GenerateOutput:
    """The output of an answer of `chat/completions`.

    Raises:
        GenerationError: the answer has another shape, or is an error in spite of its status.
    """
    choices = _choices(answer)
    messages = [choice.get("message") or {} for choice in choices]
    output = _output(answer, choices, [_text(message.get("content")) for message in messages])
    reasoning = [message.get("reasoning_content") or message.get("reasoning") for message in messages]
    if any(reasoning):
        output["reasoning"] = reasoning
    calls = [message.get("tool_calls") or None for message in messages]
    if any(calls):
        output["tool_calls"] = calls
    logprobs = [_chat_logprobs(choice.get("logprobs")) for choice in choices]
    if any(item is not None for item in logprobs):
        output["logprobs"] = logprobs
    refusals = [message.get("refusal") for message in messages]
    if any(refusals):
        output["refusals"] = refusals  # type: ignore[typeddict-unknown-key]
    return output


def completion_output(answer: Any) -> GenerateOutput:
    """The output of an answer of `completions`; errors as `chat_output`."""
    choices = _choices(answer)
    output = _output(answer, choices, [choice.get("text") or None for choice in choices])
    logprobs = [_completion_logprobs(choice.get("logprobs")) for choice in choices]
    if any(item is not None for item in logprobs):
        output["logprobs"] = logprobs
    return output


def total_tokens(answer: Any) -> int | None:
    """The tokens that an answer says it used, input and output together."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    return usage.get("total_tokens") if isinstance(usage, dict) else None


def _choices(answer: Any) -> list[dict[str, Any]]:
    if isinstance(answer, dict):
        choices = answer.get("choices")
        if isinstance(choices, list) and choices and all(isinstance(item, dict) for item in choices):
            return sorted(choices, key=lambda choice: choice.get("index") or 0)
        error = answer.get("error")
        if error:
            message = error.get("message") if isinstance(error, dict) else error
            raise GenerationError(f"the server answered with an error: {message}", kind="server")
    raise GenerationError(
        "the answer has no choices", kind="server", hint="check that base_url is that of an OpenAI API"
    )


def _output(
    answer: dict[str, Any], choices: list[dict[str, Any]], generations: list[str | None]
) -> GenerateOutput:
    usage = answer.get("usage") or {}
    given, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
    output = prepare_output(
        generations,
        input_tokens=None if given is None else [given],
        output_tokens=None if made is None else [made],
        finish_reasons=[choice.get("finish_reason") for choice in choices],
    )
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    if cached is not None:
        output["statistics"]["cached_tokens"] = [cached]
    if reasoning is not None:
        output["statistics"]["reasoning_tokens"] = [reasoning]
    return output


def _text(content: Any) -> str | None:
    """The text of a message's content; some servers give a list of parts."""
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content or None


def _chat_logprobs(logprobs: Any) -> list[list[Logprob]] | None:
    positions = logprobs.get("content") if isinstance(logprobs, dict) else None
    if positions is None:
        return None
    return [
        [
            Logprob(token=item["token"], logprob=item["logprob"])
            for item in position.get("top_logprobs") or (position,)
        ]
        for position in positions
    ]


def _completion_logprobs(logprobs: Any) -> list[list[Logprob]] | None:
    """Those of either form: the old one with parallel lists, and the chat's, which some servers give."""
    if not isinstance(logprobs, dict):
        return None
    if "content" in logprobs:
        return _chat_logprobs(logprobs)
    tokens, values = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
    tops = logprobs.get("top_logprobs") or [None] * len(tokens)
    return [
        [Logprob(token=name, logprob=number) for name, number in top.items()]
        if top
        else [Logprob(token=token, logprob=value)]
        for token, value, top in zip(tokens, values, tops, strict=False)
    ]
