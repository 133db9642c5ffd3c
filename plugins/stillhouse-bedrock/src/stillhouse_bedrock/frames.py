"""The framing of AWS's streams, `application/vnd.amazon.eventstream`, in which each event is a message.

A message is a prelude (its length, that of its headers, and a checksum of both), headers, a payload, and
a checksum of all of it. Numbers are big-endian.
"""

from __future__ import annotations

import struct
from binascii import crc32
from collections.abc import Iterator
from typing import Any

import orjson

__all__ = ["DAMAGED", "FrameReader"]

DAMAGED = "damaged"
"""The name of the last event of a stream that goes on with something that is not a message."""

MAX_HEADER_BYTES = 128 * 2**10
MAX_PAYLOAD_BYTES = 24 * 2**20
"""How large AWS lets the parts of a message become."""

_PRELUDE = struct.Struct("!III")
_CHECKSUM = struct.Struct("!I")
_SHORT = struct.Struct("!H")
_FRAME_BYTES = _PRELUDE.size + _CHECKSUM.size

_FIXED_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""How many bytes the value of a header has, by its type."""
_BYTES, _TEXT = 6, 7
"""The types of values that begin with their length."""


class FrameReader:
    """Takes a stream in any pieces, and gives each message as an object whose one key is the event's name.

    An error is an event too: AWS names it in a header. What cannot be read after the first message is the
    event `DAMAGED`, behind which nothing more comes.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_first = True
        self._is_damaged = False

    def add(self, chunk: bytes, /) -> Iterator[dict[str, Any]]:
        """Yield the events that a further piece of the stream completes.

        Raises:
            ValueError: the stream does not begin with a message.
        """
        if self._is_damaged:
            return
        self._rest += chunk
        place = 0
        try:
            while (end := self._end_of(place)) is not None:
                event = _event(bytes(self._rest[place:end]))
                place, self._is_first = end, False
                if event is not None:
                    yield event
        except ValueError as error:
            self._is_damaged = True
            if self._is_first:
                raise
            yield {DAMAGED: {"message": str(error)}}
        finally:
            del self._rest[: len(self._rest) if self._is_damaged else place]

    def _end_of(self, place: int) -> int | None:
        """Return where the message at a place ends, once all of it has come; check its beginning first."""
        if len(self._rest) - place < _PRELUDE.size:
            return None
        size, headers, checksum = _PRELUDE.unpack_from(self._rest, place)
        if crc32(self._rest[place : place + 8]) != checksum:
            raise ValueError("the checksum of a message's beginning is wrong")
        payload = size - headers - _FRAME_BYTES
        if headers > MAX_HEADER_BYTES or not 0 <= payload <= MAX_PAYLOAD_BYTES:
            raise ValueError(f"a message says that it has {size} bytes, of which {headers} are headers")
        return place + size if len(self._rest) - place >= size else None


def _event(message: bytes) -> dict[str, Any] | None:
    """Return a message as an event; `None` for one without a name.

    Raises:
        ValueError: it is damaged.
    """
    body = len(message) - _CHECKSUM.size
    if crc32(message[:body]) != _CHECKSUM.unpack_from(message, body)[0]:
        raise ValueError("the checksum of a message is wrong")
    (_, size, _) = _PRELUDE.unpack_from(message)
    payload = _PRELUDE.size + size
    headers = _headers(message[_PRELUDE.size : payload])
    kind = headers.get(":message-type", "event")
    if kind == "error":
        return {headers.get(":error-code", "error"): {"message": headers.get(":error-message", "")}}
    name = headers.get(f":{kind}-type")
    if not name:
        return None
    # orjson's error is a ValueError, too.
    return {name: orjson.loads(message[payload:body]) if payload < body else {}}


def _headers(raw: bytes) -> dict[str, str]:
    """Return the headers that are texts.

    Raises:
        ValueError: they are damaged.
    """
    found: dict[str, str] = {}
    place = 0
    try:
        while place < len(raw):
            length = raw[place]
            name = raw[place + 1 : place + 1 + length].decode()
            place += 1 + length
            kind = raw[place]
            place += 1
            if kind not in (_BYTES, _TEXT):
                place += _FIXED_SIZES[kind]
                continue
            (length,) = _SHORT.unpack_from(raw, place)
            place += 2
            if kind == _TEXT:
                found[name] = raw[place : place + length].decode()
            place += length
    except (IndexError, KeyError, UnicodeDecodeError, struct.error) as error:
        raise ValueError(f"the headers of a message are damaged: {type(error).__name__}") from None
    if place != len(raw):
        raise ValueError("the headers of a message end within a value")
    return found
