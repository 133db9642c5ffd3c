"""How files are compressed: found in their names, and written."""

from __future__ import annotations

import gzip
import importlib
import io
import sys
from pathlib import Path
from typing import IO, Any, Literal, cast

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError

__all__ = ["Compression", "compressed", "compression_of", "zstandard"]

Compression = Literal["gzip", "Zstandard"]

_SUFFIXES: dict[str, Compression] = {".gz": "gzip", ".zst": "Zstandard", ".zstd": "Zstandard"}

BUFFER_BYTES = 1 << 16


def compression_of(path: str) -> Compression | None:
    """Return how a file is compressed, by its name; `None` if it is not."""
    return _SUFFIXES.get(Path(path).suffix.lower())


def compressed(stream: IO[bytes], compression: Compression, name: str) -> IO[bytes]:
    """Return a stream that compresses into another one, which stays open when this one is closed.

    The same bytes give the same file: it holds no time and no name.

    Raises:
        ConfigurationError: the library for it is not installed.
    """
    if compression == "gzip":
        packed: Any = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0)
    else:
        packed = zstandard(name).ZstdFile(stream, mode="wb")
    return cast("IO[bytes]", io.BufferedWriter(packed, BUFFER_BYTES))


def zstandard(name: str) -> Any:
    """Return the library for Zstandard.

    Args:
        name: the file that needs it.

    Raises:
        ConfigurationError: it is not installed.
    """
    library = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        return importlib.import_module(library)
    except ImportError:
        raise ConfigurationError(
            f"{name} needs Zstandard, which this Python does not have",
            hint=install_command("stillhouse[zstd]"),
        ) from None
