"""Looking at a GGUF file before the engine does.

The engine says the same sentence about every file that it cannot load, so what is wrong with one is
found out here. Only the header is read. The layout is that of version 3, little-endian:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

from stillhouse.errors import ConfigurationError

__all__ = ["Header", "read_header"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32

# Types of metadata values.
_UINT32, _STRING, _ARRAY = 4, 8, 9
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

# Elements and bytes of a block, by the type of a tensor. Of a type that is not here, only the
# beginning is checked.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110),
    22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8),
    29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What the header of a GGUF file says.

    Attributes:
        architecture: such as `llama`; empty if the file names none.
        has_chat_template: whether the model comes with a chat template.
        tensors: how many tensors there are.
        bytes: how many bytes the file must have at least.
    """

    architecture: str
    has_chat_template: bool
    tensors: int
    bytes: int


def read_header(path: Path) -> Header:
    """The header of a GGUF file that is whole.

    Raises:
        ConfigurationError: it is missing, a folder, unreadable, empty, cut off, damaged, or no GGUF.
    """
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder, not a model", hint="name the .gguf file inside it")
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise _damaged(path, "is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _read(path, content, size)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(
            f"the model {path} cannot be read: {reason}", hint="give the path of a GGUF file as model"
        ) from None


def _read(path: Path, content: mmap.mmap, size: int) -> Header:
    if content[:4] != _MAGIC:
        raise ConfigurationError(
            f"{path} is not a GGUF file",
            hint="give a model in the GGUF format; llama.cpp's convert_hf_to_gguf.py converts other formats",
        )
    cursor = _Cursor(content, size)
    try:
        cursor.skip(4)
        version = cursor.number("<I")
        header = _parse(cursor) if version in _VERSIONS else None
    except _DamagedError:
        raise _damaged(path, "is cut off or damaged in its header") from None
    if header is None:
        raise ConfigurationError(
            f"{path} has the version {version} of the GGUF format, but the engine reads only 2 and 3",
            hint="download the model again, or: stillhouse install --upgrade xllamacpp",
        )
    if header.bytes > size:
        raise _damaged(path, f"is cut off: it has {size:,} bytes of at least {header.bytes:,}")
    return header


def _damaged(path: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"the model {path} {problem}", hint="download it again, and compare its size with the original's"
    )


def _parse(cursor: _Cursor) -> Header:
    tensors, pairs = cursor.number("<Q"), cursor.number("<Q")
    architecture, has_template, alignment = "", False, _DEFAULT_ALIGNMENT
    for _ in range(pairs):
        key, kind = cursor.text(), cursor.number("<I")
        if key == b"general.architecture" and kind == _STRING:
            architecture = cursor.text().decode("utf-8", "replace")
        elif key == b"tokenizer.chat_template" and kind == _STRING:
            has_template = bool(cursor.text().strip())
        elif key == b"general.alignment" and kind == _UINT32:
            alignment = cursor.number("<I")
        else:
            cursor.skip_value(kind)
    end = 0
    for _ in range(tensors):
        cursor.text()
        dimensions = [cursor.number("<Q") for _ in range(cursor.count(8))]
        kind, offset = cursor.number("<I"), cursor.number("<Q")
        block, block_bytes = _BLOCKS.get(kind, (1, 0))
        end = max(end, offset + prod(dimensions) // block * block_bytes)
    if alignment == 0:
        raise _DamagedError
    data = -(-cursor.position // alignment) * alignment
    return Header(architecture, has_template, tensors, data + end if tensors else cursor.position)


class _DamagedError(Exception):
    """The header says what cannot be."""


class _Cursor:
    """A place in the header that moves on with every value read."""

    def __init__(self, content: mmap.mmap, size: int) -> None:
        self.position = 0
        self._content = content
        self._size = size

    def skip(self, count: int) -> None:
        self.position += count
        if self.position > self._size:
            raise _DamagedError

    def number(self, format: str) -> int:
        start = self.position
        self.skip(struct.calcsize(format))
        (value,) = struct.unpack_from(format, self._content, start)
        return int(value)

    def text(self) -> bytes:
        length = self.number("<Q")
        start = self.position
        self.skip(length)
        return self._content[start : self.position]

    def count(self, item_bytes: int) -> int:
        """A number of items that follow, each of that many bytes at least."""
        value = self.number("<I")
        if value * item_bytes > self._size - self.position:
            raise _DamagedError
        return value

    def skip_value(self, kind: int) -> None:
        if kind in _SCALAR_BYTES:
            self.skip(_SCALAR_BYTES[kind])
        elif kind == _STRING:
            self.skip(self.number("<Q"))
        elif kind == _ARRAY:
            item, length = self.number("<I"), self.number("<Q")
            if item in _SCALAR_BYTES:
                self.skip(_SCALAR_BYTES[item] * length)
            else:
                for _ in range(length):  # ends at the end of the file, whatever the length says
                    self.skip_value(item)
        else:
            raise _DamagedError
