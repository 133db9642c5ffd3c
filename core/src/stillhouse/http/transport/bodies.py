"""`ErrorBody`: what the body of an error says, whatever its form; `clean`, for any text of a server."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

__all__ = ["ErrorBody", "clean", "error_body", "objects_in"]

MAX_ERROR_BYTES = 64 * 2**10
"""How much of an error's body is read at all: no message needs more, and a hostile one costs time."""

MAX_MESSAGE_CHARS = 500
MAX_READ_CHARS = 4000
"""How much of a message is searched for what it means."""

_MAX_DEPTH = 8
_MAX_ITEMS = 5
_MAX_OBJECTS = 100

_MESSAGE_KEYS = (
    "message", "Message", "detail", "details", "msg", "error_description", "error", "errors", "reason",
    "title",
)  # fmt: skip
_CODE_KEYS = ("code", "type", "status", "error_type", "__type", "reason")

# Escape sequences of terminals, whole: what is left of one when its first character is gone is noise.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*"
)
_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), " ")
_CONTROLS |= dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029, 0xFEFF), " ")

_PAGE = re.compile(r"</|<!doctype|<html|<script|<body", re.IGNORECASE)
_SKIPPED = re.compile(r"<(script|style|head)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^<>]{0,200}>([^<]{1,1000})", re.IGNORECASE)
_WORDS = re.compile(rb"[\x20-\x7e]{4,}")
# The message in JSON that was cut off.
_CUT_MESSAGE = re.compile(r'"(?:message|detail|error)"\s{0,20}:\s{0,20}"((?:[^"\\]|\\.){0,4000})')


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What an error says.

    Attributes:
        code: its code or its type; an empty string if it has none.
        text: its message, printable and of bounded length.
        names: all codes, types and reasons in it, for a search.
        searched: more of the message than is shown, for a search.
        data: the JSON, or `None` where it is none.
    """

    code: str = ""
    text: str = ""
    names: str = ""
    searched: str = ""
    data: Any = field(default=None, repr=False)


def clean(text: str, length: int = MAX_MESSAGE_CHARS) -> str:
    """Return a server's text on one line, without control characters and escape sequences, and cut.

    The bound comes first: nothing looks at more than a multiple of `length`.
    """
    cut = text[: 4 * length]
    cut = _ESCAPES.sub(" ", cut).translate(_CONTROLS).encode("utf-8", "replace").decode("utf-8")
    cut = " ".join(cut.split())
    return cut if len(cut) <= length else cut[:length] + " …"


def error_body(body: bytes) -> ErrorBody:
    """Read the body of an error, in any of the forms in use; at most `MAX_ERROR_BYTES` of it."""
    raw = body[:MAX_ERROR_BYTES].removeprefix(b"\xef\xbb\xbf").strip()
    data = _json(raw)
    if data is None:
        searched = _from_bytes(raw)
        return ErrorBody(text=clean(searched), searched=searched)
    if isinstance(data, str):
        data = {"message": data}
    first = data
    while isinstance(first, list) and first:
        first = first[0]
    inner = _inner(first)
    message = _message(inner)
    outer = first if isinstance(first, dict) else {}
    code = _code(inner) or _code(outer)
    if isinstance(inner, dict):
        message = _with_cause(message, inner)
    searched = clean(message or raw.decode("utf-8", "replace"), MAX_READ_CHARS)
    return ErrorBody(code, clean(searched), _names(data), searched, data)


def objects_in(data: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects in JSON, from the outside in; at most a bounded number of them."""
    level, seen = [data], 0
    for _ in range(_MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                yield value
                below.extend(item for item in value.values() if isinstance(item, (dict, list)))
            elif isinstance(value, list):
                below.extend(item for item in value[:_MAX_OBJECTS] if isinstance(item, (dict, list)))
            seen += 1
            if seen >= _MAX_OBJECTS:
                return
        level = below


def _json(raw: bytes) -> Any:
    """Return the JSON in a body, or `None`; NaN and lone surrogates are let pass."""
    if raw[:1] not in (b"{", b"[", b'"'):
        return None
    try:
        data = orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            data = json.loads(raw.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None
    return data if isinstance(data, (dict, list, str)) else None


def _inner(data: Any) -> Any:
    """Return the error within an answer: what is under `error`, the answer itself otherwise."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(data, dict):
            return data
        inner = data.get("error") or data.get("errors")
        if isinstance(inner, list):
            inner = next((item for item in inner if item), None)
        if not inner or not isinstance(inner, dict):
            return data
        data = inner
    return data


def _code(value: Any) -> str:
    if isinstance(value, dict):
        for key in _CODE_KEYS:
            code = value.get(key)
            if code and isinstance(code, (str, int, float)) and not isinstance(code, bool):
                return clean(str(code), 100)
    return ""


def _names(data: Any) -> str:
    found = []
    for item in objects_in(data):
        for key in _CODE_KEYS:
            value = item.get(key)
            if isinstance(value, str):
                found.append(clean(value, 100))
            elif isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9:
                found.append(str(value))
    return " ".join(found)


def _message(value: Any, depth: int = 0) -> str:
    """Return the text in an error's message, which may be an object or a list of them."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None or depth > _MAX_DEPTH:
        return ""
    if isinstance(value, (int, float)):
        return str(value)[:50]
    if isinstance(value, list):
        parts = [_message(item, depth + 1) for item in value[:_MAX_ITEMS]]
        return "; ".join(part for part in parts if part)
    if isinstance(value, dict):
        for key in _MESSAGE_KEYS:
            text = _message(value.get(key), depth + 1)
            if text:
                where = value.get("loc")
                if isinstance(where, list) and all(isinstance(item, (str, int)) for item in where[:10]):
                    text = f"{'.'.join(str(item)[:100] for item in where[:10])}: {text}"
                return text
    return ""


def _with_cause(message: str, error: Mapping[str, Any]) -> str:
    """Add what a gateway passes on of its provider's error."""
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if isinstance(raw, str) and raw.strip():
        nested = _json(raw[:MAX_READ_CHARS].encode("utf-8", "replace"))
        raw = (_message(_inner(nested)) if nested is not None else "") or raw
    else:
        raw = _message(raw)
    return f"{message}: {raw}" if raw and raw not in message else message


def _from_bytes(raw: bytes) -> str:
    """Return the text of a body that is not JSON."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start >= len(raw) - 3:  # the cut went through a character
            text = raw[: error.start].decode("utf-8")
        else:
            text = _from_binary(raw)
    else:
        if "\0" in text:
            text = _from_binary(raw)
    if text[:1] in ("{", "["):
        found = _CUT_MESSAGE.search(text)
        if found is not None:
            text = found.group(1).replace('\\"', '"').replace("\\n", " ")
    elif _PAGE.search(text):
        text = _from_page(text)
    return clean(text, MAX_READ_CHARS)


def _from_binary(raw: bytes) -> str:
    """Return the words in a body that is not text, such as msgpack."""
    text = raw.decode("utf-8", "replace")
    if "\0" not in text and text.count("\ufffd") * 10 < len(text):
        return text
    words = [word.decode("ascii").strip() for word in _WORDS.findall(raw)]
    return " ".join(word for word in words if word) or f"{len(raw)} bytes that are not text"


def _from_page(page: str) -> str:
    """Remove the tags of a page: a proxy's error page is written for people. It takes linear time."""
    parts, place, lower = [], 0, page.lower()
    while (start := page.find("<", place)) >= 0:
        parts.append(page[place:start])
        end = page.find(">", start)
        skipped = _SKIPPED.match(page, start)
        if end >= 0 and skipped is not None:
            end = lower.find("</" + skipped.group(1).lower(), end)
            place = end
        else:
            place = end + 1
        if end < 0:
            break
    else:
        parts.append(page[place:])
    text = html.unescape(" ".join(parts))
    if not text.strip():
        title = _TITLE.search(page)
        text = html.unescape(title.group(1)) if title else "a page without text"
    return text
