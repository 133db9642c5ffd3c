"""The standard streams while a command runs: a `Stream` each, and standard output is the command's alone."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from stillhouse.cli.streams import OutputError, Stream, point_nowhere
from stillhouse.errors import ConfigurationError

__all__ = ["output", "own_standard_output", "to_errors", "wrapped"]


class _NoInput(io.RawIOBase):
    """A standard input that is closed: whoever reads it is told so."""

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.readinto(b"")

    def readinto(self, buffer: Any) -> int:
        raise ConfigurationError("standard input is closed", hint="give a file, or pipe the rows into it")


_output: Stream | None = None


def output() -> Stream | TextIO:
    """Return the standard output of the command, which nothing but the command writes to."""
    return sys.stdout if _output is None else _output


@contextlib.contextmanager
def wrapped() -> Iterator[None]:
    """Let the standard streams be those of a command while the block runs.

    Raises:
        OutputError: what was written to standard output cannot be.
    """
    global _output
    earlier = sys.stdout, sys.stderr, _output
    stdin: TextIO | None = sys.stdin
    if stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_NoInput()), encoding="utf-8")
    out, err = Stream(sys.stdout, is_error=False), Stream(sys.stderr, is_error=True)
    sys.stdout, sys.stderr, _output = out, err, out
    try:
        yield
        if out.is_open:
            out.flush()
    finally:
        sys.stdout, sys.stderr, _output = earlier
        sys.stdin = stdin
        with contextlib.suppress(OutputError):
            if out.is_open:
                out.flush()
        _finish(err)


def _finish(err: Stream) -> None:
    """Write what standard error holds, if it can be: the interpreter's status does not depend on it."""
    stream = err._stream
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        point_nowhere(stream)


@contextlib.contextmanager
def to_errors() -> Iterator[None]:
    """Let what anybody else prints while the block runs go to standard error, such as a plugin."""
    earlier = sys.stdout
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = earlier


def own_standard_output() -> None:
    """Keep the standard output of this process for the command alone, and open what is closed.

    The descriptor 1 is standard error from then on: also what a library in C, or a program that it starts,
    prints does not get among the results.
    """
    _open_closed()
    try:
        out = sys.stdout
        if out is None or out.fileno() != 1 or not isinstance(out, io.TextIOWrapper):
            return
        out.flush()
        own = io.FileIO(os.dup(1), "w")
        os.dup2(2, 1)
    except (OSError, ValueError):
        return
    sys.stdout = io.TextIOWrapper(
        own if isinstance(out.buffer, io.RawIOBase) else io.BufferedWriter(own),
        encoding=out.encoding,
        errors=out.errors,
        line_buffering=out.line_buffering,
        write_through=out.write_through,
    )


def _open_closed() -> None:
    """Open the descriptors of the standard streams that are closed, so that no file gets one of them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != descriptor:
                    os.dup2(opened, descriptor)
                    os.close(opened)
