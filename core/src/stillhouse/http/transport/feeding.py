"""`Feed`: gives the events of an answer to a backend while the answer still comes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from stillhouse._lenient import loads
from stillhouse.http.transport.reading import EventReader, LineReader, Wire
from stillhouse.typing import OnPiece

__all__ = ["Feed"]


class Feed:
    """Reads the pieces of a text out of an answer that comes as a stream.

    What the answer is, and whether it is whole, its body says at the end. So what cannot be read here is
    passed over.

    Args:
        wire: `events` or `lines`, each of which is JSON.
        piece_of: returns the text that one of them adds.
        on_piece: gets it.

    Attributes:
        has_given: whether a piece was given: from then on, the request cannot be repeated.
    """

    def __init__(self, wire: Wire, piece_of: Callable[[Any], str | None], on_piece: OnPiece) -> None:
        self._wire = wire
        self._piece_of = piece_of
        self._on_piece = on_piece
        self.has_given = False

    def begin(self) -> Callable[[bytes], None]:
        """Begin the body of an attempt; return what takes its bytes as they come."""
        if self._wire == "lines":
            lines = LineReader()
            return lambda chunk: self._give(lines.add(chunk))
        events = EventReader()
        return lambda chunk: self._give(event.data for event in events.add(chunk))

    def _give(self, texts: Iterable[str | bytes]) -> None:
        for text in texts:
            try:
                piece = self._piece_of(loads(text))
            except (AttributeError, LookupError, TypeError, ValueError):
                continue
            if isinstance(piece, str) and piece:
                self.has_given = True
                self._on_piece(piece)
