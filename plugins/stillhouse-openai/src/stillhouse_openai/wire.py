"""From the API's answers to a `GenerateOutput`. Nothing in an answer is taken to be of the right type."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import orjson

from stillhouse import GenerateOutput, GenerationError, Logprob, prepare_output
from stillhouse.http import chat_logprobs, finish_reason, logprobs_of, statistics_of, string_of, total_of
from stillhouse.outputs import count_of
from stillhouse_openai.reasoning import detailed

__all__ = ["call_of", "detail", "output_of", "said"]

HINT = "check that base_url is the address of an OpenAI API"

FINISH_REASONS = {
    "end_turn": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "max_length": "length",
    "max_output_tokens": "length",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "model_length": "length",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "prohibited_content": "content_filter",
    "recitation": "content_filter",
    "safety": "content_filter",
    "sensitive": "content_filter",
}
"""Other servers' words in the API's own; any further word is kept."""

_MAX_SAID = 500
"""How many characters of a server's message are shown."""


def output_of(answer: Any, *, chat: bool, kept: Collection[str] = ()) -> GenerateOutput:
    """The output of an answer.

    Args:
        answer: what the server sent, as JSON types.
        chat: whether it comes from `chat/completions` or from `completions`.
        kept: further keys of a message, or of the whole answer, that the output keeps.

    Raises:
        GenerationError: the answer has another shape, or is an error in spite of its status. Its
            `outputs` has the tokens that the server counted.
    """
    choices = _choices(answer)
    try:
        return _chat_output(answer, choices, kept) if chat else _completion_output(answer, choices)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GenerationError(
            f"the answer has another shape than the API's: {type(error).__name__}: {error}"[:_MAX_SAID],
            kind="server",
            outputs=_counted(answer),
            hint=HINT,
        ) from None


def said(error: Any) -> str:
    """What an error of a server says, not longer than one wants to read."""
    message = error.get("message") or error if isinstance(error, dict) else error
    text = message if isinstance(message, str) else repr(message)
    return text if len(text) <= _MAX_SAID else f"{text[:_MAX_SAID]} …"


def _choices(answer: Any) -> list[dict[str, Any]]:
    if isinstance(answer, dict):
        choices = answer.get("choices")
        if isinstance(choices, list) and choices and all(isinstance(item, dict) for item in choices):
            for choice in choices:
                if choice.get("error") or str(choice.get("finish_reason")).lower() == "error":
                    raise _failed(answer, choice.get("error") or "it gives no reason")
            return choices if len(choices) == 1 else _in_order(choices)
        if answer.get("error"):
            raise _failed(answer, answer["error"])
    raise GenerationError("the answer has no choices", kind="server", outputs=_counted(answer), hint=HINT)


def _in_order(choices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The choices by their index; one without an index stays where it is."""
    indexes = [count_of(choice.get("index")) for choice in choices]
    order = sorted(
        range(len(choices)), key=lambda place: place if indexes[place] is None else indexes[place] or 0
    )
    return [choices[place] for place in order]


def _failed(answer: Any, error: Any) -> GenerationError:
    return GenerationError(
        f"the server answered with an error: {said(error)}", kind="server", outputs=_counted(answer)
    )


def _counted(answer: Any) -> list[GenerateOutput]:
    """An output without a generation: what the server counted is paid for."""
    counted = _with_usage(prepare_output([]), answer) if isinstance(answer, dict) else None
    return [counted] if counted and counted["statistics"] else []


def _chat_output(
    answer: dict[str, Any], choices: list[dict[str, Any]], kept: Collection[str] = ()
) -> GenerateOutput:
    if len(choices) > 1:
        choices = _with_calls(choices)
    messages = [_message(choice) for choice in choices]
    texts, thoughts = zip(*(text_and_thoughts(message.get("content")) for message in messages), strict=True)
    output = _output(answer, choices, list(texts))
    reasoning = [
        thought
        or string_of(message.get("reasoning_content"))
        or string_of(message.get("reasoning"))
        or detailed(message.get("reasoning_details"))
        for thought, message in zip(thoughts, messages, strict=True)
    ]
    if any(reasoning):
        output["reasoning"] = reasoning
    calls = [_calls(message.get("tool_calls")) for message in messages]
    if any(calls):
        output["tool_calls"] = calls
        # OpenAI says stop where the tool was named, TGI and others always, xAI nothing; the finish
        # reason must explain why there is no text.
        output["finish_reasons"] = [
            "tool_calls" if made and (reason is None or (reason == "stop" and text is None)) else reason
            for reason, made, text in zip(output["finish_reasons"], calls, output["generations"], strict=True)
        ]
    refusals = [string_of(message.get("refusal")) for message in messages]
    if any(refusals):
        output["refusals"] = refusals  # type: ignore[typeddict-unknown-key]
        # The API says `stop` for a refusal too; the finish reason must explain why there is no text.
        output["finish_reasons"] = [
            "refusal" if refusal and text is None else reason
            for refusal, text, reason in zip(
                refusals, output["generations"], output["finish_reasons"], strict=True
            )
        ]
    for key in kept:
        found = [_kept(key, message, answer) for message in messages]
        if any(found):
            output[key] = found  # type: ignore[literal-required]
    return output


def _with_calls(choices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The choices, where one that says that it calls tools has those of the next: some servers split it."""
    made: list[dict[str, Any]] = []
    for choice in choices:
        message, before = choice.get("message"), made[-1] if made else {}
        text = before.get("message")
        if (
            before.get("finish_reason") == "tool_calls"
            and isinstance(message, dict)
            and isinstance(text, dict)
            and message.get("tool_calls")
            and not (message.get("content") or text.get("tool_calls"))
        ):
            made[-1] = {**before, "message": {**text, "tool_calls": message["tool_calls"]}}
        else:
            made.append(choice)
    return made


def _kept(key: str, message: dict[str, Any], answer: dict[str, Any]) -> Any:
    """What a message says under a key, or the answer as a whole; JSON that is not empty."""
    value = message.get(key)
    return (answer.get(key) if value is None else value) or None


def _message(choice: dict[str, Any]) -> dict[str, Any]:
    """The message of a choice. Where none is, a finish reason must say why."""
    message = choice.get("message")
    if isinstance(message, dict):
        return message
    if message is not None:
        raise TypeError(f"the message is of type {type(message).__name__}")
    if choice.get("text") is not None:
        return {"content": choice["text"]}
    if not string_of(choice.get("finish_reason")):
        raise TypeError("a choice has neither a message nor a finish reason")
    return {}


def _completion_output(answer: dict[str, Any], choices: list[dict[str, Any]]) -> GenerateOutput:
    return _output(answer, choices, [text_and_thoughts(choice.get("text"))[0] for choice in choices])


def _output(
    answer: dict[str, Any], choices: list[dict[str, Any]], generations: list[str | None]
) -> GenerateOutput:
    output = prepare_output(
        generations,
        finish_reasons=[finish_reason(choice.get("finish_reason"), FINISH_REASONS) for choice in choices],
    )
    _with_usage(output, answer)
    logprobs = [_logprobs(choice.get("logprobs")) for choice in choices]
    if any(item is not None for item in logprobs):
        output["logprobs"] = logprobs
    return output


def _with_usage(output: GenerateOutput, answer: dict[str, Any]) -> GenerateOutput:
    """Add the counts that the server gives, as far as they are some."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return output
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    cached = detail(usage, "prompt_tokens_details", "cached_tokens")
    thought = detail(usage, "completion_tokens_details", "reasoning_tokens")
    if thought and completion is not None:
        both = total_of(completion, thought)
        if total_of(prompt, completion) != total_of(usage.get("total_tokens")) == total_of(prompt, both):
            completion = both  # xAI counts them apart
    output["statistics"] |= statistics_of(
        input_tokens=prompt,
        output_tokens=completion,
        # DeepSeek's name is the second; the input holds them too.
        cached_tokens=usage.get("prompt_cache_hit_tokens") if cached is None else cached,
        cache_creation_tokens=detail(
            usage, "prompt_tokens_details", "cache_write_tokens"
        ),  # OpenRouter's name
        reasoning_tokens=thought,
    )
    return output


def detail(usage: dict[str, Any], details: str, name: str) -> Any:
    """A count of the usage that stands among its details."""
    given = usage.get(details)
    return given.get(name) if isinstance(given, dict) else None


def text_and_thoughts(content: Any) -> tuple[str | None, str | None]:
    """The text of a message's content, and the thoughts: some servers give a list of parts of both."""
    if content is None or isinstance(content, str):
        return content or None, None
    if not isinstance(content, list):
        raise TypeError(f"the content is of type {type(content).__name__}")
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        if not isinstance(part, dict):
            texts.append(part)
            continue
        thought = part.get("thinking")
        if isinstance(thought, list):  # parts again
            thoughts.extend(item.get("text") or "" for item in thought if isinstance(item, dict))
        elif thought is not None:
            thoughts.append(thought)
        else:
            texts.append(part.get("text") or "")
    return "".join(texts) or None, "".join(thoughts) or None


def _calls(calls: Any) -> list[dict[str, Any]] | None:
    if not isinstance(calls, list):
        return None
    return [call_of(call) for call in calls if isinstance(call, dict)] or None


def call_of(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call with its id and its arguments as texts, as the API has them and takes them back."""
    id, function = call.get("id"), call.get("function")
    if id is not None and not isinstance(id, str):
        call = {**call, "id": str(id)}
    if isinstance(function, dict):
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            function = {**function, "arguments": orjson.dumps(arguments).decode()}
            call = {**call, "function": function}
    return call


def _logprobs(logprobs: Any) -> list[list[Logprob]] | None:
    """Those of either form: the chat's, and the older one with parallel lists. Servers mix them up.

    A position whose candidates cannot be read has none; what is no such list is left out.
    """
    if not isinstance(logprobs, dict):
        return None
    positions = chat_logprobs(logprobs.get("content"))
    if positions is not None:
        return positions
    tokens, values = logprobs.get("tokens"), logprobs.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values):
        return None
    tops = logprobs.get("top_logprobs")
    if not isinstance(tops, list) or len(tops) != len(tokens):
        tops = [None] * len(tokens)
    return [
        logprobs_of(token, value, list(top.items()) if isinstance(top, dict) else [])
        for token, value, top in zip(tokens, values, tops, strict=True)
    ]
