"""`RowImages`: the images of a row, read and put into its input."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from stillhouse.inputs import split_input
from stillhouse.jobs.prompts.image_files import ImageFolders, is_local
from stillhouse.jobs.prompts.pictures import data_url, unpacked
from stillhouse.typing import FormattedInput

__all__ = ["RowImages"]

MAX_ROW_CHARACTERS = 64 * 2**20
"""How much the images of one row may be together, as they are sent."""

_MARK = "<image>"
"""Where an image goes in the texts of some public datasets."""


class RowImages:
    """Puts the images of rows into their inputs, as `data:` addresses.

    An image is named by an `image_url` part of a message, or is in a column. Files are read only from allowed
    folders; addresses on the web stay as they are.

    Args:
        folders: reads files; `None` where no folder is allowed.
        column: the column with the images, if there is one.

    Attributes:
        column: the argument.
    """

    def __init__(self, folders: ImageFolders | None, column: str | None = None) -> None:
        self._folders = folders
        self.column = column

    def __call__(self, columns: Mapping[str, Any], input: FormattedInput) -> FormattedInput:
        """Return the input of a row with its images; what it was is left alone.

        Raises:
            ValueError: an image is not read, and why.
        """
        content, form = split_input(input)
        parts = [] if self.column is None else [*map(_part, self._of_column(columns, self.column))]
        if isinstance(content, str):
            if parts:
                raise ValueError("a raw prompt has no images; leave out --raw, or --image-column")
            return input
        chat: list[Any] = list(content)
        if self._folders is not None:
            chat = [_with_content(message, self._inlined) for message in chat]
        if parts:
            chat = _placed(chat, parts, self.column or "")
        size = sum(len(url) for url in _data_in(chat))
        if size > MAX_ROW_CHARACTERS:
            raise ValueError(
                f"the images of the row are {size:,} characters together, and at most {MAX_ROW_CHARACTERS:,} "
                "are sent"
            )
        return chat if form is None else (chat, form)

    def _inlined(self, parts: list[Any]) -> list[Any]:
        return [self._inlined_part(part) for part in parts]

    def _inlined_part(self, part: Any) -> Any:
        if not isinstance(part, dict) or part.get("type") != "image_url":
            return part
        given = part.get("image_url")
        url = given.get("url") if isinstance(given, dict) else given
        if not isinstance(url, str) or not url or not is_local(url):
            return part
        assert self._folders is not None
        made = data_url(self._folders.read(url), _told(url))
        return {**part, "image_url": {**given, "url": made} if isinstance(given, dict) else made}

    def _of_column(self, columns: Mapping[str, Any], column: str) -> Iterator[str]:
        """Yield the addresses of the images in a column."""
        if column not in columns:
            raise ValueError(
                f"the row has no column {column}, which --image-column names; its columns are: "
                f"{', '.join(map(str, columns)) or 'none'}"
            )
        for item in _items(columns[column]):
            if isinstance(item, bytes):
                yield data_url(item, f"an image in the column {column}")
            elif not isinstance(item, str):
                raise ValueError(
                    f"the column {column} has a {type(item).__name__}, and no path, list of paths or bytes"
                )
            elif not is_local(item):
                yield item
            elif (content := unpacked(item)) is not None:
                yield data_url(content, f"an image in the column {column}")
            elif self._folders is None:
                raise ValueError(
                    f"{_told(item)} is a file of this machine; allow its folder with --images-from"
                )
            else:
                yield data_url(self._folders.read(item), _told(item))


def _told(name: str) -> str:
    shown = name if len(name) <= 80 else f"{name[:80]}…"
    return f"the image {shown!r}"


def _items(value: Any) -> Iterator[Any]:
    """Yield the images in a column's value: a path, bytes, a struct with either, or a list of these."""
    if isinstance(value, str) and value.startswith("["):  # a list in a format that has none
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _items(item) if not isinstance(item, (list, tuple)) else [item]
    elif isinstance(value, dict) and value.keys() <= {"bytes", "path"}:  # as the library datasets has images
        yield from _items(value.get("bytes") or value.get("path"))
    elif value is not None and value != "":
        yield bytes(value) if isinstance(value, (bytearray, memoryview)) else value


def _part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def _with_content(message: Any, change: Any) -> Any:
    """Return a message with another list of parts; the message itself is left alone."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    changed = change(content)
    return {**message, "content": changed} if changed != content else message


def _data_in(chat: list[Any]) -> Iterator[str]:
    for message in chat:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            given = part.get("image_url") if isinstance(part, dict) else None
            url = given.get("url") if isinstance(given, dict) else given
            if isinstance(url, str) and url.startswith("data:"):
                yield url


def _is_place(part: Any) -> bool:
    """Whether a part says where an image goes, and not which: as chats beside a column of images have it."""
    return (
        isinstance(part, dict)
        and part.get("type") == "image"
        and all(value is None for name, value in part.items() if name not in ("type", "index"))
    )


def _placed(chat: list[Any], images: list[dict[str, Any]], column: str) -> list[Any]:
    """Return a chat with images: where it says that there are some, else before the text of its last user."""
    places = sum(_is_place(part) for message in chat for part in _parts_of(message))
    marks = sum(_text_of(message).count(_MARK) for message in chat if _is_user(message))
    if places or marks == len(images):
        if places and places != len(images):
            raise ValueError(
                f"the messages have places for {places} images, and the column {column} has {len(images)}"
            )
        rest = iter(images)
        return [_filled(message, rest) if places else _unmarked(message, rest) for message in chat]
    for position in reversed(range(len(chat))):
        if _is_user(chat[position]):
            message = chat[position]
            content = message.get("content")
            texts = (
                content
                if isinstance(content, list)
                else [{"type": "text", "text": content}]
                if content
                else []
            )
            return [*chat[:position], {**message, "content": [*images, *texts]}, *chat[position + 1 :]]
    raise ValueError("the chat has no message of the user, which the images would go into")


def _is_user(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "user"


def _parts_of(message: Any) -> list[Any]:
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, list) else []


def _text_of(message: Any) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _filled(message: Any, images: Iterator[dict[str, Any]]) -> Any:
    return _with_content(message, lambda parts: [next(images) if _is_place(part) else part for part in parts])


def _unmarked(message: Any, images: Iterator[dict[str, Any]]) -> Any:
    """Return a message whose marks are images."""
    if not _is_user(message) or _MARK not in _text_of(message):
        return message
    parts: list[Any] = []
    for number, text in enumerate(_text_of(message).split(_MARK)):
        if number:
            parts.append(next(images))
        if text.strip():
            parts.append({"type": "text", "text": text.strip("\n")})
    return {**message, "content": parts}
