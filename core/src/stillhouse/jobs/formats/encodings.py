"""Encodings of text: found in its first bytes or in all of it, and turned into UTF-8 while it is read.

What is found is what cannot be mistaken: a byte-order mark, the zeros of UTF-16, text that is valid UTF-8 as
a whole. What is left is taken for cp1252, which Windows and Excel write in the West, where it looks like it.
"""

from __future__ import annotations

import codecs
import io
import re
from typing import Any, BinaryIO, cast

from stillhouse.errors import ConfigurationError, near_matches

__all__ = ["check_encoding", "encoding_of_all", "encoding_of_head", "transcoded"]

CHUNK_BYTES = 1 << 18

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # it begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_KNOWN = (
    "utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1", "iso-8859-15", "cp1250", "cp1251",
    "cp437", "cp850", "mac-roman", "koi8-r", "gb18030", "big5", "shift_jis", "cp932", "euc-jp", "euc-kr",
)  # fmt: skip

_HIGH = re.compile(rb"[\x80-\xff]")
_UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_NO_CP1252 = re.compile(rb"[\x00\x81\x8d\x8f\x90\x9d]")
_LETTER = re.compile(rb"[A-Za-z\xc0-\xff]")
# In Western text, no four letters with an accent follow each other, and few signs stand within a word.
_FOREIGN = re.compile(rb"[\x80-\xff]{4,}")
_WITHIN = re.compile(
    rb"[a-z][\x80\x82-\x84\x86-\x8c\x8e\x95\x98\x99\x9b\x9f\xa1-\xa9\xab\xac\xae-\xb3\xb5\xb6\xb8\xb9\xbb-\xbf][a-z]"
)


def check_encoding(name: str) -> str:
    """Return the name of an encoding of text, as Python writes it.

    Raises:
        ConfigurationError: there is none of this name.
    """
    try:
        info = codecs.lookup(name)
        "".encode(info.name)
    except (LookupError, ValueError):  # unknown, or an encoding that is not of text, such as base64
        near = near_matches(name.lower(), list(_KNOWN))
        raise ConfigurationError(f"--encoding: there is no encoding {name!r}", hint=near) from None
    return info.name


def encoding_of_head(head: bytes) -> tuple[str | None, int]:
    """Return the encoding that the first bytes of a text show, and how many of them are a byte-order mark.

    Returns:
        `None` if they show none: it may be any in which ASCII is ASCII.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    pairs = len(head) // 2
    if pairs:
        # The zeros of ASCII in UTF-16 are all on one side; a zero as a character is rare.
        low, high = head[: 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
        if high >= 0.4 * pairs and low <= 0.02 * pairs:
            return "utf-16-le", 0
        if low >= 0.4 * pairs and high <= 0.02 * pairs:
            return "utf-16-be", 0
        # Of Cyrillic, say, only the ends of lines, spaces and digits have one.
        if high > 4 * low and _has_lines(head, b"\n\0", 0):
            return "utf-16-le", 0
        if low > 4 * high and _has_lines(head, b"\0\n", 1):
            return "utf-16-be", 0
    return None, 0


def _has_lines(head: bytes, end: bytes, offset: int) -> bool:
    """Return whether what may be UTF-16 has ends of lines, and most line feeds are in one.

    Args:
        head: the first bytes.
        end: a line feed in this encoding.
        offset: which byte of it is the line feed of ASCII.
    """
    places = [match.start() for match in re.finditer(b"\n", head)]
    ends = sum(place % 2 == offset and head.startswith(end, place - offset) for place in places)
    return 2 * ends > len(places)


def encoding_of_all(stream: BinaryIO, again: Any) -> str | None:
    """Return the encoding of a text that has no mark, from all of it.

    Args:
        stream: its bytes.
        again: gives them once more, from the beginning.

    Returns:
        `utf-8`, also where some bytes of such a text are wrong; `cp1252`; `None` if it is neither.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_between = False  # two bytes of a character
    try:
        for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""):
            if is_between or not chunk.isascii():
                decoder.decode(chunk)
                is_between = bool(decoder.getstate()[0])
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return _of_no_utf8(again())
    return "utf-8"


def _of_no_utf8(stream: BinaryIO) -> str | None:
    """Choose between UTF-8 with some wrong bytes, cp1252, and what is not known."""
    high = valid = letters = foreign = within = 0
    is_cp1252 = True
    for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""):
        letters += len(_LETTER.findall(chunk))
        if chunk.isascii():
            is_cp1252 &= b"\0" not in chunk
            continue
        characters = _UTF8.findall(chunk)
        valid += sum(map(len, characters))
        high += len(_HIGH.findall(chunk))
        foreign += sum(map(len, _FOREIGN.findall(chunk)))
        within += len(_WITHIN.findall(chunk))
        is_cp1252 &= _NO_CP1252.search(chunk) is None
    if valid > high - valid:
        return "utf-8"
    if is_cp1252 and high <= 0.45 * max(letters, 1) and foreign <= 0.5 * high and within <= 0.1 * high:
        return "cp1252"
    return None


def transcoded(stream: BinaryIO, encoding: str, name: str) -> BinaryIO:
    """Return a text as UTF-8 that has another encoding.

    Args:
        stream: its bytes, without a byte-order mark.
        encoding: their encoding.
        name: what the file is called in messages.

    Returns:
        A stream whose reading raises `ConfigurationError` where the bytes are none of the encoding.
    """
    return cast("BinaryIO", io.BufferedReader(_Transcoded(stream, encoding, name), CHUNK_BYTES))


class _Transcoded(io.RawIOBase):
    def __init__(self, stream: BinaryIO, encoding: str, name: str) -> None:
        # Half a pair of surrogates is not valid UTF-8 either: its row alone fails for it.
        errors = "surrogatepass" if encoding.startswith(("utf-16", "utf-32")) else "strict"
        self._decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._stream, self._encoding, self._name = stream, encoding, name
        self._rest = memoryview(b"")
        self._is_first, self._has_ended = True, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and not self._has_ended:
            data = cast("io.BufferedReader", self._stream).read1(CHUNK_BYTES)
            self._has_ended = not data
            try:
                text = self._decoder.decode(data, self._has_ended)
            except UnicodeError as error:
                raise ConfigurationError(
                    f"{self._name} is not text in the encoding {self._encoding}: {error}",
                    hint="give the right one with --encoding",
                ) from None
            if self._is_first and text:
                text, self._is_first = text.removeprefix("\ufeff"), False
            self._rest = memoryview(text.encode("utf-8", "surrogatepass"))
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size
