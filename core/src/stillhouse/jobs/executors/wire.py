"""Messages as bytes, and over a pipe: each a length and a pickle. Both ends are processes of one run."""

from __future__ import annotations

import pickle
import struct
from typing import IO, Any

from stillhouse.errors import ConfigurationError, described

__all__ = ["packed", "read_message", "unpacked", "write_packed"]

_LENGTH = struct.Struct(">Q")


def packed(message: Any) -> bytes:
    """Return a message as bytes.

    Raises:
        ConfigurationError: something in it does not pickle.
    """
    try:
        return pickle.dumps(message, protocol=5)
    except Exception as error:
        raise ConfigurationError(
            f"a message between processes cannot be pickled: {described(error)}",
            hint="use values that can be pickled, or leave out --executor",
        ) from error


def unpacked(content: bytes) -> Any:
    """Return the message that `packed` made bytes of. Only bytes of a process of the same run are safe."""
    return pickle.loads(content)  # noqa: S301 - from a process of the same run


def write_packed(stream: IO[bytes], content: bytes) -> None:
    """Write the bytes of a message."""
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def read_message(stream: IO[bytes]) -> Any:
    """Read a message.

    Raises:
        EOFError: the other end is gone.
    """
    (length,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    return unpacked(_read(stream, length))


def _read(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content
