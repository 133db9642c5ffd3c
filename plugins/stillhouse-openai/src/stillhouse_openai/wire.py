"""From the API's answers to a `GenerateOutput`."""

from __future__ import annotations

from typing import Any

from stillhouse import GenerateOutput, GenerationError, Logprob, prepare_output

__all__ = ["candidates", "output_of", "total_tokens"]


def output_of(answer: Any, *, chat: bool) -> GenerateOutput:
    """The output of an answer.

    Args:
        answer: what the server sent, as JSON types.
        chat: whether it comes from `chat/completions` or from `completions`.

    Raises:
        GenerationError: the answer has another shape, or is an error in spite of its status.
    """
    choices = _choices(answer)
    try:
        return _chat_output(answer, choices) if chat else _completion_output(answer, choices)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GenerationError(
            f"the answer has another shape than the API's: {type(error).__name__}: {error}",
            kind="server",
            hint="check that base_url is that of an OpenAI API",
        ) from None


def total_tokens(answer: Any) -> int | None:
    """The tokens that an answer says it used, input and output together."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) else None


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


def _chat_output(answer: dict[str, Any], choices: list[dict[str, Any]]) -> GenerateOutput:
    messages = [choice.get("message") or {} for choice in choices]
    output = _output(answer, choices, [_text(message.get("content")) for message in messages])
    reasoning = [message.get("reasoning_content") or message.get("reasoning") or None for message in messages]
    if any(reasoning):
        output["reasoning"] = reasoning
    calls = [message.get("tool_calls") or None for message in messages]
    if any(calls):
        output["tool_calls"] = calls
    refusals = [message.get("refusal") or None for message in messages]
    if any(refusals):
        output["refusals"] = refusals  # type: ignore[typeddict-unknown-key]
        # The API says `stop` for a refusal too; the finish reason must explain why there is no text.
        output["finish_reasons"] = [
            "refusal" if refusal and text is None else reason
            for refusal, text, reason in zip(
                refusals, output["generations"], output["finish_reasons"], strict=True
            )
        ]
    return output


def _completion_output(answer: dict[str, Any], choices: list[dict[str, Any]]) -> GenerateOutput:
    return _output(answer, choices, [choice.get("text") or None for choice in choices])


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
    logprobs = [_logprobs(choice.get("logprobs")) for choice in choices]
    if any(item is not None for item in logprobs):
        output["logprobs"] = logprobs
    return output


def _text(content: Any) -> str | None:
    """The text of a message's content; some servers give a list of parts."""
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    if content is not None and not isinstance(content, str):
        raise TypeError(f"the content is of type {type(content).__name__}")
    return content or None


def _logprobs(logprobs: Any) -> list[list[Logprob]] | None:
    """Those of either form: the chat's, and the older one with parallel lists. Servers mix them up."""
    if not isinstance(logprobs, dict):
        return None
    positions = logprobs.get("content")
    if positions is not None:
        return [candidates(position) for position in positions]
    tokens, values = logprobs.get("tokens"), logprobs.get("token_logprobs")
    if tokens is None or values is None:
        return None
    tops = logprobs.get("top_logprobs")
    if not isinstance(tops, list):
        tops = [None] * len(tokens)
    return [
        _candidates(token, value, list((top or {}).items()))
        for token, value, top in zip(tokens, values, tops, strict=True)
    ]


def candidates(position: dict[str, Any]) -> list[Logprob]:
    """Those of one position in the chat's form: the generated token, then the likeliest others."""
    listed = [(item["token"], item["logprob"]) for item in position.get("top_logprobs") or ()]
    return _candidates(position["token"], position["logprob"], listed)


def _candidates(token: str, value: float, listed: list[tuple[str, float]]) -> list[Logprob]:
    """The generated token, then the likeliest others."""
    others = [item for item in listed if item[0] != token]
    return [Logprob(token=name, logprob=number) for name, number in ((token, value), *others)]
