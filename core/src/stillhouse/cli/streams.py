"""`Stream`: a standard stream on which what comes from others is shown, never done.

On a terminal, it shows control characters instead of sending them. A character that the encoding lacks is
replaced, a standard error that is closed or full costs nothing but the messages, and a standard output that
nobody reads any more takes what is written and drops it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, cast

__all__ = ["OutputError", "Stream", "point_nowhere", "shown"]

# All control characters but newline and tab, those that change the direction of a text, and the separators
# that some terminals take for the end of a line.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

# A progress bar of a library, which goes back to the beginning of the line that it has begun itself.
_FRAME = re.compile(r"(\r?)([^\r\n]*)(\r?)")


def shown(text: str) -> str:
    r"""Return a text in which control characters are shown: `\x1b`, or `\u009b`, as it may stand in JSON."""
    return _CONTROLS.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}"


class OutputError(OSError):
    """Standard output cannot be written."""


class Stream(io.TextIOBase):
    """A standard stream as a command sees it.

    Args:
        stream: the stream of this process, `None` if it is closed.
        is_error: whether it is standard error, which may fail.

    Attributes:
        unfiltered: takes what is made here and moves the cursor.
        is_open: whether there is a stream.
        is_gone: whether nobody reads it any more.
        on_gone: called when that is found out.
    """

    def __init__(self, stream: TextIO | None, *, is_error: bool) -> None:
        self._stream = stream
        self.unfiltered: TextIO = cast("TextIO", _Unfiltered(self))
        self.is_open = stream is not None
        self.is_gone = False
        self.on_gone: Callable[[], Any] = lambda: None
        self._is_error = is_error
        self._is_terminal = stream is not None and _is_terminal(stream)
        self._above: TextIO | None = None
        self._is_in_frame = True  # nothing stands on the line that is not a progress bar's
        self._bytes: _Bytes | None = None
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            with contextlib.suppress(Exception):
                reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        above = self._above
        if above is not None:
            above.write(shown(text))
            return len(text)
        shows = self._is_terminal or self._is_error
        filtered = self._filtered(text) if shows else text
        self._guarded(lambda stream: stream.write(filtered))
        return len(text)

    def _filtered(self, text: str) -> str:
        frame = _FRAME.fullmatch(text) if self._is_in_frame else None
        if text:
            self._is_in_frame = text.endswith("\n") or (frame is not None and "\r" in text)
        if frame is not None:
            return frame[1] + shown(frame[2]) + frame[3]
        return shown(text)

    def write_bytes(self, data: bytes) -> None:
        """Write bytes of a text in UTF-8."""
        if self._is_terminal:
            data = shown(data.decode("utf-8", "backslashreplace")).encode("utf-8", "backslashreplace")
        self._guarded(lambda stream: _write_bytes(stream, data))

    def flush(self) -> None:
        self._guarded(lambda stream: stream.flush())

    def _guarded(self, action: Callable[[TextIO], Any]) -> None:
        """Do something with the stream. Of standard error nothing that fails is reported.

        Raises:
            OutputError: standard output is closed, or its disk is full.
        """
        if self.is_gone:
            return
        if self._stream is None:
            if not self._is_error:
                raise OutputError("standard output is closed")
            return
        try:
            action(self._stream)
        except BrokenPipeError:
            self.is_gone = True
            point_nowhere(self._stream)
            self.on_gone()
        except (OSError, ValueError) as error:
            if self._is_error:
                return
            point_nowhere(self._stream)
            self.is_gone = True
            reason = getattr(error, "strerror", None) or str(error)
            raise OutputError(f"standard output cannot be written: {reason}") from None

    @contextlib.contextmanager
    def above(self, display: TextIO) -> Iterator[None]:
        """Write through a live display, which keeps what is written above itself, while the block runs."""
        self._above = display
        try:
            yield
        finally:
            self._above = None

    def close(self) -> None:
        """Flush it; it is not closed."""
        with contextlib.suppress(OutputError):
            self.flush()

    @property
    def closed(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._is_terminal

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("the stream is closed")
        return self._stream.fileno()

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]
        for line in lines:
            self.write(line)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "errors", None) or "backslashreplace"

    @property
    def buffer(self) -> _Bytes:
        """The stream of bytes below, for text in UTF-8."""
        if self._bytes is None:
            self._bytes = _Bytes(self)
        return self._bytes


class _Unfiltered(io.TextIOBase):
    """A stream without its filter; what it does when it cannot be written is the same."""

    def __init__(self, stream: Stream) -> None:
        self._of = stream

    def write(self, text: str) -> int:
        self._of._guarded(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._of.flush()

    def close(self) -> None:
        """It is not closed."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._of.isatty()

    def fileno(self) -> int:
        return self._of.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._of.encoding


class _Bytes(io.RawIOBase):
    """The bytes of a stream, filtered as its text is."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, data: Any) -> int:
        taken = bytes(data)
        self._stream.write_bytes(taken)
        return len(taken)

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """It is not closed."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (OSError, ValueError):
        return False


def _write_bytes(stream: TextIO, data: bytes) -> None:
    below = getattr(stream, "buffer", None)
    if below is None:
        stream.write(data.decode("utf-8", "backslashreplace"))
    else:
        below.write(data)


def point_nowhere(stream: TextIO) -> None:
    """Let what a stream still holds go nowhere, or the interpreter fails when it ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
