"""`FileReader`: what the readers of text have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from stillhouse.jobs.formats.content import Content
from stillhouse.jobs.formats.rows import Row

__all__ = ["FileReader"]


class FileReader(ABC):
    """The rows of one file, or of standard input for `-`.

    Args:
        source: its path, or its content.

    Attributes:
        schema: `None`: these formats declare no types.
        content: the content.

    Raises:
        ConfigurationError: it cannot be opened.
    """

    schema = None

    def __init__(self, source: str | Content) -> None:
        self.content = Content(source) if isinstance(source, str) else source

    @abstractmethod
    def __iter__(self) -> Iterator[Row]:
        """Yield the rows, from the beginning."""

    @property
    def places(self) -> list[Path]:
        """The file that is read; none for standard input."""
        return [] if self.content.path == "-" else [Path(self.content.path)]

    @property
    def found(self) -> list[str]:
        """What is unusual about the file, each a clause for a message."""
        return self.content.found

    @property
    def met(self) -> list[str]:
        """What was unusual in the rows that were read so far, likewise."""
        return self.content.met

    @property
    def share_read(self) -> float | None:
        """How much of the file was read, from 0 to 1; `None` where its size is not known."""
        return self.content.share_read

    def digest(self) -> str:
        """Return a digest of the content of the file; standard input has none.

        Raises:
            ConfigurationError: it can be read only once, or is not whole.
        """
        return self.content.digest()

    def close(self) -> None:
        """Close the file."""
        self.content.close()
