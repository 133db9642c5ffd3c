"""`Mark`: what a copy of a state says of itself, in the first bytes of the file.

A copy is a gzip file, whose header has the mark as its comment. So its owner is known without reading the
rest, a copy that was cut off is noticed, and `gunzip` makes the state of it.
"""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

__all__ = ["MAX_HEAD_BYTES", "Mark", "NewerMarkError", "mark_in", "pack"]

MAX_HEAD_BYTES = 8 << 10
"""How much of a copy is read for its mark."""

_BLOCK_BYTES = 1 << 20

# gzip, deflate, with a comment that ends with a zero.
_MAGIC = b"\x1f\x8b\x08\x10"
_COMMENT = 10
_VERSION = 1
_KEY = "stillhouse_state_copy"

_ID = re.compile("[0-9a-f]{32}")
_MAX_SIZE = 1 << 50
_MAX_NUMBER = 1 << 53
_MAX_CHARACTERS = 200


class NewerMarkError(Exception):
    """The copy was written by a later version of Stillhouse, which writes other marks."""


@dataclass(frozen=True)
class Mark:
    """What a copy says of itself.

    Attributes:
        run: identifies the run.
        writer: identifies the process that wrote it.
        number: of the copies of this process, from 1.
        taken: when the state was read, in seconds since 1970.
        is_final: whether the process had ended its work on the run.
        size: of the state, in bytes.
        schema: the version of the state's tables.
        output: the name of the run's output.
        host: the machine of the process.
        process: its number.
        due: seconds until the process meant to read the state again.
        pace: rows that it finished in a second; `None` if that was not known yet.
        window: how many rows may have been in flight.
    """

    run: str
    writer: str
    number: int
    taken: float
    is_final: bool
    size: int
    schema: int
    output: str
    host: str
    process: int
    due: float
    pace: float | None
    window: int

    @property
    def repeats(self) -> int | None:
        """How many finished rows may be missing, in flight included; `None` where that is not known.

        It is an estimate: it holds if the pace stayed the same and the next copy was not late.
        """
        if self.is_final:
            return 0
        return None if self.pace is None else self.window + math.ceil(self.pace * self.due)


def pack(content: BinaryIO, mark: Mark, target: BinaryIO) -> None:
    """Write a state with its mark as a copy."""
    said = json.dumps({_KEY: _VERSION, **asdict(mark)}).encode("ascii")
    target.write(_MAGIC + struct.pack("<LBB", 0, 0, 255) + said + b"\0")
    # Texts of answers: the fastest level already makes a third of them.
    compressor = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    check = size = 0
    while block := content.read(_BLOCK_BYTES):
        check, size = zlib.crc32(block, check), size + len(block)
        target.write(compressor.compress(block))
    target.write(compressor.flush() + struct.pack("<LL", check, size & 0xFFFFFFFF))


def mark_in(head: bytes) -> Mark | None:
    """Return the mark at the beginning of a file; `None` if there is no valid one.

    Raises:
        NewerMarkError: a later version of Stillhouse wrote it.
    """
    end = head.find(b"\0", _COMMENT)
    if not head.startswith(_MAGIC) or end < 0:
        return None
    try:
        said = json.loads(head[_COMMENT:end])
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or type(said.get(_KEY)) is not int:
        return None
    if said[_KEY] > _VERSION:
        raise NewerMarkError
    values: dict[str, Any] = {name: said.get(name) for name in Mark.__dataclass_fields__}
    if not _is_valid(values):
        return None
    for name in ("output", "host"):
        values[name] = "".join(c if c.isprintable() else "?" for c in values[name][:_MAX_CHARACTERS])
    return Mark(**values)


def _is_valid(values: dict[str, Any]) -> bool:
    counts = {"number": _MAX_NUMBER, "size": _MAX_SIZE, "schema": _MAX_NUMBER, "process": _MAX_NUMBER,
              "window": _MAX_NUMBER}  # fmt: skip
    numbers = [values["taken"], values["due"], *([] if values["pace"] is None else [values["pace"]])]
    return (
        all(isinstance(values[name], str) and _ID.fullmatch(values[name]) for name in ("run", "writer"))
        and all(isinstance(values[name], str) for name in ("output", "host"))
        and type(values["is_final"]) is bool
        and all(type(values[name]) is int and 0 <= values[name] <= most for name, most in counts.items())
        and all(type(value) in (int, float) and 0 <= value < 1e11 for value in numbers)
    )
