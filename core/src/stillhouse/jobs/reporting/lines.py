"""Lines that say how a run goes, one after the other or one that changes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TextIO

__all__ = ["LiveLine", "PlainLines"]


class PlainLines:
    """A line after the other."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, line: str) -> None:
        self.note(line)

    def note(self, text: str) -> None:
        """Print a text, from any thread, in one piece."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

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
        self._stream, self._is_filtered = stream, terminal is not stream
        self._live = Live(
            self._spinner,
            console=console,
            refresh_per_second=1 / every,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=not self._is_filtered,
        )
        self._above = ExitStack()
        if self._is_filtered:
            self._above.enter_context(stream.above(FileProxy(console, terminal)))  # type: ignore[attr-defined]
        self._live.start()

    def __call__(self, line: str) -> None:
        self._spinner.update(text=self._text(line))

    def note(self, text: str) -> None:
        """Print a text above the line, from any thread."""
        if self._is_filtered:
            self._stream.write(f"{text}\n")
        else:
            self._live.console.print(self._text(text), soft_wrap=True)

    def close(self) -> None:
        self._live.stop()
        self._above.close()
