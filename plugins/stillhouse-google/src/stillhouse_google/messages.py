"""From a chat to the `systemInstruction` and the `contents` of the API."""

from __future__ import annotations

import mimetypes
from typing import Any

import orjson

from stillhouse import ConfigurationError, StandardInput
from stillhouse.http import (
    InlineImage,
    arguments_of,
    function_of,
    image_of,
    split_system,
    text_of,
    tool_names,
)

__all__ = ["request_contents"]

_IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif", "image/gif")
_EMPTY = {"text": ""}
_HINT = 'write it in the API\'s own format, such as {"inlineData": {"mimeType": …, "data": …}}'


def request_contents(chat: StandardInput) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Return the system instruction, `None` if there is none, and the contents.

    System messages leave the chat, wherever they stand in it, and follow each other in the instruction.
    Messages without anything in them are left out: the API refuses an empty part. What one role says in
    messages that follow each other is one content where the API wants one: a model's text and its calls,
    and the results of these calls, which come in the order of the calls.

    Raises:
        ConfigurationError: a part has no form that the API takes, a result belongs to no call, or nothing
            is left to be answered.
    """
    system, messages = split_system(chat)
    names: dict[str, str] = {}
    order: list[Any] = []  # the ids of the calls that are to be answered next
    contents: list[dict[str, Any]] = []
    results: list[tuple[int, dict[str, Any]]] = []
    for message in messages:
        if message["role"] in ("tool", "function"):
            results.append(_result(message, names, order, len(results)))
            continue
        _close(contents, results)
        if message["role"] in ("assistant", "model"):
            old = message.get("function_call")  # as OpenAI had it before there were ids
            made = message.get("tool_calls") or ([{"function": old}] if isinstance(old, dict) else ())
            parts = _parts(message.get("content")) + [_call(call) for call in made]
            names.update(tool_names([message]))
            calls = [call.get("id") for call in made]
            if parts and contents and contents[-1]["role"] == "model":
                contents[-1]["parts"] += parts
                order += calls
            elif parts:
                contents.append({"role": "model", "parts": parts})
                order = calls
        elif parts := _parts(message.get("content")):
            contents.append({"role": "user", "parts": parts})
    _close(contents, results)
    if not contents:
        raise ConfigurationError(
            "the chat has nothing for the model to answer", hint="add a user message with text"
        )
    said = "\n\n".join(filter(None, (text_of(message.get("content")) for message in system)))
    # A role is needed: without one, models of the Gemma family answer with status 500.
    return {"role": "system", "parts": [{"text": said}]} if said else None, contents


def _close(contents: list[dict[str, Any]], results: list[tuple[int, dict[str, Any]]]) -> None:
    """Add the results of one turn's calls as one content: the API counts them."""
    if results:
        results.sort(key=lambda item: item[0])
        contents.append({"role": "user", "parts": [part for _, part in results]})
        results.clear()


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str) or content is None:
        return [{"text": content}] if content else []
    return [made for part in content if (made := _part(part)) != _EMPTY]


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind == "text":
        return {"text": text_of([part])}
    if kind == "image_url":
        return _image(part)
    if isinstance(part, dict) and kind is None and part:
        return part  # in the API's own form
    raise ConfigurationError(f"the API does not support parts of the type {str(kind)[:40]!r}", hint=_HINT)


def _image(part: dict[str, Any]) -> dict[str, Any]:
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else given
    is_stored = isinstance(url, str) and url.startswith("gs://")
    image = url if is_stored else image_of(part, _IMAGE_TYPES)
    if isinstance(image, InlineImage):
        return {"inlineData": {"mimeType": image.media_type, "data": image.data}}
    data = {"fileUri": image}
    path = str(image).partition("?")[0].partition("#")[0]
    kind = mimetypes.guess_type(path, strict=False)[0]  # WebP is not in all registers
    if kind is not None:
        data["mimeType"] = kind
    return {"fileData": data}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """Return a call as a part, with the signature that it came with: the API demands it back."""
    function = function_of(call)
    if function is None:
        return call  # in the API's own form
    made: dict[str, Any] = {"name": function.get("name"), "args": arguments_of(call)}
    if call.get("id"):
        made["id"] = call["id"]
    part: dict[str, Any] = {"functionCall": made}
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    if signature:
        part["thoughtSignature"] = signature
    return part


def _result(message: Any, names: dict[str, str], order: list[Any], place: int) -> tuple[int, dict[str, Any]]:
    """Return the result of a call as a part, and its place among those of the turn.

    The API wants the name of the function, which a message of the role `tool` need not have.
    """
    id = message.get("tool_call_id")
    name = (names.get(id) if isinstance(id, str) else None) or message.get("name")
    if not name:
        raise ConfigurationError(
            f"the chat has a result for the tool call {str(id)[:40]!r}, but no such call",
            hint="keep the assistant's message with its tool_calls before the results",
        )
    texts, media = message.get("content"), []
    if isinstance(texts, (list, tuple)):
        parts = _parts(texts)
        media = [part for part in parts if "text" not in part]
        texts = "".join(part["text"] for part in parts if "text" in part)
    made: dict[str, Any] = {"name": name, "response": _response(texts)}
    if id:
        made["id"] = id
    if media:
        made["parts"] = media
    return order.index(id) if id in order else len(order) + place, {"functionResponse": made}


def _response(text: Any) -> dict[str, Any]:
    """Return a result as the object that the API wants; a JSON object is one."""
    try:
        value = orjson.loads(text) if text and text.lstrip()[:1] in ("{", "[") else text
    except orjson.JSONDecodeError:
        value = text
    return value if isinstance(value, dict) else {"output": "" if value is None else value}
