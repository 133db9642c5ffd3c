"""The responses API: from chats to its items, and from its answers to the shape of chat answers."""

from __future__ import annotations

import functools
import re
from typing import Any

from stillhouse import GenerateOutput, GenerationError, UnsupportedError, prepare_output
from stillhouse.http import chat_logprobs, counted, statistics_of, tool_call
from stillhouse_openai.wire import detail, said

__all__ = ["has_only_responses", "responses_body", "responses_output"]

# What the models' pages list with "Responses" as their only endpoint, by the families' names.
_RESPONSES_ONLY = re.compile(
    r"(o\d|gpt-).*-(pro|codex|cyber|deep-research|research|law)\b|(codex|computer-use)-"
    r"|gpt-daybreak-|gpt-.*\brosalind\b"
)
_HINT = "check that base_url is the address of an OpenAI API; the field api sets which one"
_UNKNOWN = ("frequency_penalty", "logit_bias", "presence_penalty", "seed", "stop")


@functools.lru_cache(maxsize=64)
def has_only_responses(model: str) -> bool:
    """Whether a model of this name answers on the responses API alone."""
    return _RESPONSES_ONLY.match(model) is not None


def responses_body(body: dict[str, Any]) -> dict[str, Any]:
    """The body of a request, from that of the same one to `chat/completions`; it is left alone.

    Nothing is stored at the provider unless the body says so, as with chats.

    Raises:
        UnsupportedError: a parameter has no place in this API.
    """
    rest = dict(body)
    for name in _UNKNOWN:
        if rest.pop(name, None) is not None:
            raise UnsupportedError(
                f"the responses API does not support {name}", hint="leave it out, or choose another model"
            )
    rest.pop("n", None)
    made: dict[str, Any] = {"model": rest.pop("model"), "input": _items(rest.pop("messages")), "store": False}
    for name in ("max_completion_tokens", "max_tokens"):
        if name in rest:
            made["max_output_tokens"] = rest.pop(name)
    effort, form = rest.pop("reasoning_effort", None), rest.pop("response_format", None)
    if effort is not None:
        made["reasoning"] = {"effort": effort} | (rest.pop("reasoning", None) or {})
    if form is not None:
        flat = {"type": form["type"], **(form.get("json_schema") or {})}
        made["text"] = {"format": flat} | (rest.pop("text", None) or {})
    if "tools" in rest:
        made["tools"] = [_tool(tool) for tool in rest.pop("tools")]
    if "tool_choice" in rest:
        made["tool_choice"] = _tool_choice(rest.pop("tool_choice"))
    if rest.pop("logprobs", None):
        made["include"] = [*(rest.pop("include", None) or ()), "message.output_text.logprobs"]
    return made | rest


def _items(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for given in messages:
        message = dict(given)
        content, calls = message.pop("content", None), message.pop("tool_calls", None)
        if message["role"] == "tool":
            output = content if isinstance(content, str) else [_part(part) for part in content or ()]
            items.append(
                {"type": "function_call_output", "call_id": message["tool_call_id"], "output": output}
            )
            continue
        if message["role"] == "assistant" and isinstance(content, list):
            content = "".join(part.get("text") or "" for part in content)
        if isinstance(content, list):
            content = [_part(part) for part in content]
        if content or not calls:
            items.append({**message, "content": content or ""})
        for call in calls or ():
            function = call["function"]
            items.append(
                {
                    "type": "function_call",
                    "call_id": call["id"],
                    "name": function["name"],
                    "arguments": function["arguments"],
                }
            )
    return items


def _part(part: Any) -> Any:
    """A part of a message; one that only this API has is left as it is."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return {**part, "type": "input_text"}
    if kind == "image_url":
        image = part["image_url"]
        image = {"url": image} if isinstance(image, str) else dict(image)
        return {"type": "input_image", "image_url": image.pop("url"), "detail": "auto", **image}
    if kind == "file":
        return {"type": "input_file", **part["file"]}
    return part


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool  # one of this API's own
    # Here a function is strict unless it says otherwise; in chats it is the other way round.
    return {"type": "function", "parameters": None, "strict": False, **function}


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        return {"type": "function", **choice["function"]}
    return choice


def responses_output(answer: Any) -> GenerateOutput:
    """The output of an answer, with one generation.

    Raises:
        GenerationError: the answer has another shape, or says that it failed. Its `outputs` has the
            tokens that the server counted.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("output"), list):
        error = answer.get("error") if isinstance(answer, dict) else None
        raise (
            _failed(error, answer)
            if error
            else GenerationError(
                "the answer has no output", kind="server", outputs=_counted(answer), hint=_HINT
            )
        )
    if answer.get("status") in ("cancelled", "failed"):
        raise _failed(answer.get("error") or answer["status"], answer)
    try:
        return _output(answer)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GenerationError(
            f"the answer has another shape than the API's: {type(error).__name__}: {error}"[:500],
            kind="server",
            outputs=_counted(answer),
            hint=_HINT,
        ) from None


def _failed(error: Any, answer: Any) -> GenerationError:
    code = error.get("code") if isinstance(error, dict) else None
    return GenerationError(
        f"the server answered with an error: {said(error)}",
        kind="rate_limit" if code == "rate_limit_exceeded" else "server",
        outputs=_counted(answer),
        hint="retry the request",
    )


def _counted(answer: Any) -> list[GenerateOutput]:
    """An output without a generation: what the server counted is paid for."""
    statistics = _statistics(answer.get("usage")) if isinstance(answer, dict) else {}
    return counted(statistics)


def _output(answer: dict[str, Any]) -> GenerateOutput:
    items = [item for item in answer["output"] if isinstance(item, dict)]
    parts = [part for item in items if item.get("type") == "message" for part in _parts(item["content"])]
    texts = [part for part in parts if part.get("type") == "output_text"]
    refusal = "".join(part["refusal"] for part in parts if part.get("type") == "refusal") or None
    calls = [
        tool_call(item["call_id"], item["name"], item["arguments"])
        for item in items
        if item.get("type") == "function_call"
    ]
    text = "".join(part["text"] for part in texts) or None
    details = answer.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    if answer.get("status") != "incomplete":
        reason = "refusal" if refusal and text is None else "tool_calls" if calls else "stop"
    elif reason == "max_output_tokens":
        reason = "length"
    output = prepare_output(
        [text],
        finish_reasons=[reason if isinstance(reason, str) else None],
        tool_calls=[calls] if calls else None,
        refusals=[refusal] if refusal else None,
        reasoning=_reasoning(items),
    )
    output["statistics"] = _statistics(answer.get("usage"))
    listed = [part.get("logprobs") for part in texts]
    positions = [position for given in listed if isinstance(given, list) for position in given]
    if positions:
        output["logprobs"] = [chat_logprobs(positions)]
    return output


def _parts(content: Any) -> list[dict[str, Any]]:
    """The parts of a message; a text is one of them."""
    if isinstance(content, str):
        return [{"type": "output_text", "text": content}]
    if not isinstance(content, list):
        raise TypeError(f"the content is of type {type(content).__name__}")
    return [part for part in content if isinstance(part, dict)]


def _statistics(usage: Any) -> dict[str, list[int]]:
    if not isinstance(usage, dict):
        return {}
    return statistics_of(
        input_tokens=usage.get("input_tokens"),
        output_tokens=usage.get("output_tokens"),
        cached_tokens=detail(usage, "input_tokens_details", "cached_tokens"),
        reasoning_tokens=detail(usage, "output_tokens_details", "reasoning_tokens"),
    )


def _reasoning(items: list[dict[str, Any]]) -> list[str] | None:
    """Return the summaries of the reasoning, or the reasoning itself if the server sends it."""
    found: list[str] = []
    for item in items:
        if item.get("type") == "reasoning":
            parts = item.get("summary") or item.get("content")
            texts = (
                [part.get("text") for part in parts if isinstance(part, dict)]
                if isinstance(parts, list)
                else []
            )
            found.extend(text for text in texts if isinstance(text, str))
    return ["\n\n".join(found)] if found else None
