"""Splitting and checking inputs."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from stillhouse.errors import ConfigurationError, UnsupportedError
from stillhouse.structured.shape import capability_of
from stillhouse.typing import FormattedInput, StandardInput, StructuredOutput

__all__ = ["check_input", "split_input"]

# The scheme of an address. A single letter and a colon is a drive on Windows.
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]+):")

# Addresses that only this machine or a browser can read, and those that no provider fetches.
_UNREADABLE = frozenset({"about", "blob", "file", "filesystem", "ftp", "ftps", "javascript", "sftp"})

_URLS = ("image_url", "video_url", "audio_url", "file_url")

_HINTS = {
    "raw_prompt": "send a chat, a list of messages",
    "chat": "send a raw prompt, a string",
    "images": "send text only, or choose a model that reads images",
}


def split_input(
    input: FormattedInput,
) -> tuple[StandardInput | str, StructuredOutput | None]:
    """Return the chat or the raw prompt of an input, and its own structured output or `None`."""
    if isinstance(input, tuple):
        chat, structured_output = input
        return chat, structured_output
    return input, None


def check_input(input: Any, capabilities: Collection[str], llm: str) -> None:
    """Reject an invalid input, and one that needs a missing capability.

    Args:
        input: the input.
        capabilities: the capabilities of the backend.
        llm: the name of the backend, for messages.

    Raises:
        ConfigurationError: the input is not a chat, a chat with a structured output, or a string; or a part
            of it refers to a file on this machine.
        UnsupportedError: the input needs a capability that is not among `capabilities`.
    """
    if type(input) is str:
        if "raw_prompt" not in capabilities:
            raise _unsupported("raw_prompt", llm)
        return
    structured_output: Any = None
    if type(input) is tuple and len(input) == 2:
        input, structured_output = input
    if not isinstance(input, list):
        raise ConfigurationError(
            f"an LLM takes no input of the type {type(input).__name__}",
            hint="give a list of messages, a pair of that list and a structured output, or a string",
        )
    if not input:
        raise ConfigurationError("the chat has no message", hint="give at least one message")
    if "chat" not in capabilities:
        raise _unsupported("chat", llm)
    for message in input:
        if not isinstance(message, dict) or "role" not in message:
            raise ConfigurationError(
                "a message of the chat is not a dict with a role",
                hint='write it as {"role": "user", "content": "…"}',
            )
        calls = message.get("tool_calls")
        if calls and not (isinstance(calls, (list, tuple)) and all(isinstance(call, dict) for call in calls)):
            raise ConfigurationError(
                "the tool_calls of a message are not a list of dicts",
                hint='write each as {"id": …, "type": "function", "function": {"name": …, "arguments": …}}',
            )
        content = message.get("content")
        if type(content) is list:
            if "images" not in capabilities and _has_image(content):
                raise _unsupported("images", llm)
            for part in content:
                if type(part) is dict and part.get("type") != "text":
                    _check_part(part)
        elif type(content) is not str and content is not None and not isinstance(content, (str, list, tuple)):
            raise ConfigurationError(
                f"the content of a message is of type {type(content).__name__}",
                hint="give a text, or a list of parts",
            )
    if structured_output is not None:
        needed = capability_of(structured_output)
        if needed not in capabilities:
            raise _unsupported(needed, llm)


def _has_image(parts: list[Any]) -> bool:
    return any(isinstance(part, dict) and part.get("type") == "image_url" for part in parts)


def _check_part(part: dict[str, Any]) -> None:
    """Reject a part that refers to a file on this machine.

    The file is not read: the author of the rows must not choose which files leave the machine.
    """
    for name in _URLS:
        given = part.get(name)
        if given is not None:
            _check_url(given.get("url") if isinstance(given, dict) else given)
    source = part.get("source")
    if isinstance(source, dict) and source.get("type") == "url":
        _check_url(source.get("url"))


def _check_url(url: Any) -> None:
    if not isinstance(url, str) or not url:
        return  # the backend reports what is missing
    found = _SCHEME.match(url[:80])
    if found is None or found[1].lower() in _UNREADABLE:
        raise ConfigurationError(
            f"the address of an image or a file, {url[:40]!r}, is not one that the provider can read, "
            "and files of this machine are not sent by their name",
            hint="write its bytes as data:image/png;base64,…, or give an address on the web; in a run, "
            "--images-from DIR allows to read a folder",
        )


def _unsupported(capability: str, llm: str) -> UnsupportedError:
    return UnsupportedError(
        f"{llm} lacks the capability {capability}, which this input needs",
        hint=_HINTS.get(capability, "choose a backend that has it: stillhouse show NAME lists them"),
    )
