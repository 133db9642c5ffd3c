"""Lines that say how a run goes, one after the other or one that changes."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TextIO

from stillhouse.jobs.reporting.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

__all__ = ["LiveLine", "PlainLines"]

# A log gets a line for each of these shares of the input, and otherwise one whenever the run has become so
# many times as old: about twenty lines in an hour, and fewer than 50 in a year.
FIRST_SECONDS = 5.0
SHARE = 0.05
OLDER, OLDER_WITHOUT_SHARE = 2.0, 1.4

_STYLES = {"bar": "green", "rest": "dim", "failed": "red", "": ""}


class PlainLines:
    """A line after the other, at intervals that grow."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last, self._share = 0.0, 0.0

    def __call__(self, progress: Progress) -> None:
        """Print the progress, if it is time to."""
        seconds, share = progress.seconds, progress.share
        if seconds < self._last + FIRST_SECONDS:
            return
        older = OLDER_WITHOUT_SHARE if share is None else OLDER
        if seconds < older * self._last and (share is None or share < self._share + SHARE):
            return
        self._last, self._share = seconds, share or 0.0
        self.note(str(progress))

    def note(self, text: str) -> None:
        """Print a text, from any thread, in one piece."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing is left to print."""


class _Line:
    """What the live line shows: it is made for the width that the terminal has at that moment."""

    def __init__(self, bar: str) -> None:
        self.progress: Progress | None = None
        self._bar = bar

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Any:
        from rich.text import Text

        text = Text(no_wrap=True, overflow="crop", end="")
        if self.progress is None:
            text.append("starting")
        else:
            # In the last column of some terminals, the cursor is on the next line already.
            for part in self.progress.parts(options.max_width - 1, self._bar):
                text.append(part.text, _STYLES[part.kind])
        yield text


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
        from rich.text import Text

        # A stream that shows control characters lets this line through, and gives the other ones to it.
        terminal = getattr(stream, "unfiltered", stream)
        # Whoever sets NO_COLOR wants no other marks either.
        colors: Any = None if os.environ.get("NO_COLOR") else "auto"
        console = Console(file=terminal, color_system=colors)
        is_unicode = (getattr(terminal, "encoding", None) or "").lower().startswith("utf")
        self._text = Text
        self._line = _Line("━─" if is_unicode else "#-")
        self._stream, self._is_filtered = stream, terminal is not stream
        self._live = Live(
            self._line,
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

    def __call__(self, progress: Progress) -> None:
        """Show the progress; the line is drawn periodically."""
        self._line.progress = progress

    def note(self, text: str) -> None:
        """Print a text above the line, from any thread."""
        if self._is_filtered:
            self._stream.write(f"{text}\n")
        else:
            self._live.console.print(self._text(text), soft_wrap=True)

    def close(self) -> None:
        """Remove the line."""
        self._live.stop()
        self._above.close()
