"""Lines that say how a run goes, one after the other or one that changes, and how times are written."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TextIO

__all__ = ["LiveLine", "PlainLines", "clock", "duration"]


class PlainLines:
    """A line after the other."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def close(self) -> None:
        pass


class LiveLine:
    """One line that changes, with whatever else is written to the stream above it.

    Args:
        stream: a terminal.
        every: seconds between two changes.
    """

    def __init__(self, stream: TextIO, every: float) -> None:
        from rich.console import Console
        from rich.file_proxy import FileProxy
        from rich.live import Live
        from rich.spinner import Spinner
        from rich.text import Text

        # A stream that shows control characters lets this line through, and gives the other ones to it.
        terminal = getattr(stream, "unfiltered", stream)
        console = Console(file=terminal)
        is_unicode = (getattr(terminal, "encoding", None) or "").lower().startswith("utf")
        self._text = Text
        self._spinner = Spinner("dots" if is_unicode else "line", text=Text("starting"))
        is_filtered = terminal is not stream
        self._live = Live(
            self._spinner,
            console=console,
            refresh_per_second=1 / every,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=not is_filtered,
        )
        self._above = ExitStack()
        if is_filtered:
            self._above.enter_context(stream.above(FileProxy(console, terminal)))  # type: ignore[attr-defined]
        self._live.start()

    def __call__(self, line: str) -> None:
        self._spinner.update(text=self._text(line))

    def close(self) -> None:
        self._live.stop()
        self._above.close()


def duration(seconds: float) -> str:
    """Format a time span, such as `3 min 20 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def clock(seconds: float) -> str:
    """Format seconds since 1970 as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
