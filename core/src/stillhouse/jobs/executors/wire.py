"""Messages as bytes, and over a pipe: each a mark, a length and a pickle.

Both ends are processes of one run, and nobody else has the pipe. But a backend may write something else into
it, by accident. Without the mark, the first bytes of that would be the length of a message that never comes.
"""

from __future__ import annotations

import pickle
import struct
from typing import IO, Any

from stillhouse._execution.exits import is_from_signal
from stillhouse.errors import ConfigurationError, described

__all__ = ["packed", "read_message", "unpacked", "write_packed"]

_HEADER = struct.Struct(">4sQ")
_MARK = b"SH\x00\x01"


def packed(message: Any) -> bytes:
    """Return a message as bytes.

    Raises:
        ConfigurationError: something in it does not pickle.
    """
    try:
        return pickle.dumps(message, protocol=5)
    except Exception as error:
        raise ConfigurationError(
            f"it cannot be sent between processes: {described(error)}",
            hint="give values that pickle, or leave out --executor",
        ) from error


def unpacked(content: bytes) -> Any:
    """Return the message that `packed` made bytes of. Only bytes of a process of the same run are safe.

    Raises:
        Exception: they cannot be read in this process.
    """
    try:
        return pickle.loads(content)  # noqa: S301 - from a process of the same run
    except BaseException as error:  # what an exception of a backend does as it is read may end a thread
        if isinstance(error, Exception) or is_from_signal(error):
            raise
        raise ValueError(f"it raised {described(error)}") from error


def write_packed(stream: IO[bytes], content: bytes) -> None:
    """Write the bytes of a message."""
    stream.write(_HEADER.pack(_MARK, len(content)))
    stream.write(content)
    stream.flush()


def read_message(stream: IO[bytes]) -> Any:
    """Read a message.

    Raises:
        EOFError: the other end is gone.
        Exception: what comes is no message, or cannot be read in this process.
    """
    mark, length = _HEADER.unpack(_read(stream, _HEADER.size))
    if mark != _MARK:
        raise ValueError("something else than a message is in the pipe")
    return unpacked(_read(stream, length))


def _read(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content
