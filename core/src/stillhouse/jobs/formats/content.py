"""`Content`: the bytes of a file or of standard input, decompressed, and as UTF-8 where they are text."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import sys
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.compression import compression_of, zstandard
from stillhouse.jobs.formats.encodings import encoding_of_head, transcoded

__all__ = ["HEAD_BYTES", "Content", "open_source"]

HEAD_BYTES = 1 << 16
"""How much of a file is looked at to find out what it is."""

BUFFER_BYTES = 1 << 16

_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "Zstandard"))


def open_source(path: str) -> BinaryIO:
    """Open the bytes of a file, or of standard input for `-`.

    Raises:
        ConfigurationError: it cannot be opened.
    """
    try:
        return sys.stdin.buffer if path == "-" else Path(path).open("rb", buffering=BUFFER_BYTES)
    except ValueError:
        raise ConfigurationError(f"{path!r} is not a path", hint="leave out the NUL character") from None
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from None


class Content:
    """The content of a file, from the beginning as often as it is asked for; of standard input, once.

    Args:
        path: the path; `-` is standard input.
        encoding: that of the text; `None` finds it, as far as the first bytes show it.
        name: what the file is called in messages, where that is not its path.

    Attributes:
        path: the path.
        name: what the file is called in messages.
        suffix: that of the path, in lower case, without one that says how it is compressed.
        encoding: `utf-8` as long as nothing else is known or said; whoever finds it later sets it.
        is_encoding_known: whether it was said, or the first bytes show it.
        first: the first of the decompressed bytes.
        head: the first bytes of what `text` reads.
        found: what is unusual about the file, each a clause for a message.
        met: what is unusual in its rows, likewise.

    Raises:
        ConfigurationError: it cannot be opened or decompressed, or has another encoding.
    """

    def __init__(self, path: str, encoding: str | None = None, name: str | None = None) -> None:
        self.path, self.name = path, name or path
        self.found: list[str] = []
        self.met: list[str] = []
        self._file = open_source(path)
        try:
            self._is_seekable = self._file.seekable()
            self._size = _size_of(self._file) if self._is_seekable else 0
            self._total: int | None = None
            self._ready: BinaryIO | None = None
            first = self._first(self._file)
            self.compression = next((found for magic, found in _MAGIC if first.startswith(magic)), None)
            self.suffix = self._check_suffix()
            self._stream = self._restarted()
            self.first = first = self._first(self._stream)
            if not self._is_seekable:
                self._ready = self._stream
            self.encoding, self._mark = encoding or "utf-8", 0
            found, mark = encoding_of_head(first)
            self.is_encoding_known = encoding is not None or found is not None
            if encoding is None and found is not None:
                self.encoding = found
                if found != "utf-8":
                    self.found.append(f"its encoding is {found}")
            if found is not None and found == self.encoding:
                self._mark = mark
            self.head = self._first_text(first)
            self._rewind()
        except BaseException:
            self.close()
            raise

    def data(self) -> BinaryIO:
        """Return the decompressed bytes, from the beginning."""
        if self._ready is None:
            self._ready = self._restarted()
        self._stream, self._ready = self._ready, None
        return self._stream

    def text(self) -> BinaryIO:
        """Return the text as UTF-8, without a byte-order mark, from the beginning."""
        stream = self.data()
        stream.read(self._mark)
        if self.encoding == "utf-8":
            return stream
        return transcoded(stream, self.encoding, self.name)

    @property
    def can_jump(self) -> bool:
        """Whether `text_at` can be used: the text is in the file as it is."""
        return self._is_seekable and self.compression is None and self.encoding == "utf-8"

    @property
    def text_start(self) -> int:
        """How many bytes of the file are before the text: its byte-order mark."""
        return self._mark

    def text_at(self, offset: int) -> BinaryIO:
        """Return the text from a byte of the file on.

        Args:
            offset: the first byte; the file must be one in which `can_jump`.
        """
        self._ready = None
        self._file.seek(offset)
        self._stream = self._file
        return self._stream

    def digest(self) -> str:
        """Return a digest of the decompressed bytes. An archive is read to its end, and so checked.

        Raises:
            ConfigurationError: it can be read only once, or its archive is damaged.
        """
        if not self._is_seekable:
            raise ConfigurationError(
                f"{self.name} can be read only once, and a run reads its input several times",
                hint=f"give it as standard input: stillhouse generate - < {self.name}",
            )
        digest = hashlib.file_digest(self.data(), "sha256")  # type: ignore[arg-type]
        self._total = self._stream.tell()
        if self.encoding != "utf-8":
            text = self.text()
            while text.read(1 << 20):
                pass
        self._rewind()
        return digest.hexdigest()

    def close(self) -> None:
        """Close the file."""
        if self._file is not sys.stdin.buffer:
            self._file.close()

    @property
    def share_read(self) -> float | None:
        """How much was read, from 0 to 1; `None` where the size is not known."""
        total = self._total or (None if self.compression else self._size)
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # another thread reads, or it is closed
            if total:
                return min(1.0, self._stream.tell() / total)
            if self._size:
                return min(1.0, self._file.tell() / self._size)
        return None

    def _check_suffix(self) -> str:
        """Return the suffix of what is compressed; say where the name and the content differ."""
        name = Path(self.path).name.lower()
        said = None if self.path == "-" else compression_of(name)
        if said is not None and 0 < self._size < 4 and self.compression is None:
            raise _damaged(self.name, said, "it is cut off")
        if said is not None:
            name = name.rpartition(".")[0]
        if said != self.compression and (self.compression or self._size):
            actual = f"compressed with {self.compression}" if self.compression else "not compressed"
            self.found.append(f"it is {actual}")
        return Path(name).suffix

    def _rewind(self) -> None:
        """Go back to the beginning, so that nothing counts as read before somebody reads the rows."""
        if self._is_seekable:
            self._stream = self._restarted()

    def _restarted(self) -> BinaryIO:
        if self._is_seekable:
            self._file.seek(0)
        if self.compression is None:
            return self._file
        raw = _Decompressed(self._file, self.compression, self.name)
        return cast("BinaryIO", io.BufferedReader(raw, BUFFER_BYTES))

    def _first(self, stream: BinaryIO) -> bytes:
        if self._is_seekable:
            stream.seek(0)
            return stream.read(HEAD_BYTES)
        return cast("io.BufferedReader", stream).peek(HEAD_BYTES)[:HEAD_BYTES]

    def _first_text(self, first: bytes) -> bytes:
        first = first[self._mark :]
        if self.encoding == "utf-8":
            return first
        return first.decode(self.encoding, "replace").encode("utf-8", "replace")


class _Decompressed(io.RawIOBase):
    """The content of an archive of one or several members; what is wrong with it is one error."""

    def __init__(self, file: BinaryIO, compression: str, name: str) -> None:
        self._name, self._compression = name, compression
        if compression == "gzip":
            self._archive: Any = gzip.GzipFile(fileobj=file, mode="rb")
            self._errors: tuple[type[Exception], ...] = (gzip.BadGzipFile, EOFError, zlib.error)
        else:
            zstd = zstandard(name)
            self._archive = zstd.ZstdFile(file, mode="rb")
            self._errors = (zstd.ZstdError, EOFError)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._archive.read1(len(buffer))
        except self._errors as error:
            problem = "it is cut off" if isinstance(error, EOFError) else str(error)
            raise _damaged(self._name, self._compression, problem) from None
        buffer[: len(data)] = data
        return len(data)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._archive.tell())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._archive.seek(offset, whence))


def _damaged(name: str, compression: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} cannot be decompressed ({compression}): {problem}",
        hint="check that it is whole; copy or download it again",
    )


def _size_of(stream: BinaryIO) -> int:
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # standard input that a program put in its place
        return 0
    return max(status.st_size, 0)
