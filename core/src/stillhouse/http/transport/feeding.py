"""`Feed`: gives the events of an answer to a backend while the answer still comes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
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
        wire: `events` or `lines`, each of which is JSON, or a function that returns a `StreamReader`.
        piece_of: returns the text that one of them adds.
        on_piece: gets it.

    Attributes:
        wire: how the stream is read.
        has_given: whether a piece was given: from then on, the request cannot be repeated.
    """

    def __init__(self, wire: Wire, piece_of: Callable[[Any], str | None], on_piece: OnPiece) -> None:
        self.wire = wire
        self._piece_of = piece_of
        self._on_piece = on_piece
        self.has_given = False

    def begin(self) -> Callable[[bytes], None]:
        """Begin the body of an attempt; return what takes its bytes as they come."""
        if callable(self.wire):
            values = self.wire()
            return lambda chunk: self._give_all(values.add(chunk))
        if self.wire == "lines":
            lines = LineReader()
            return lambda chunk: self._give_texts(lines.add(chunk))
        events = EventReader()
        return lambda chunk: self._give_texts(event.data for event in events.add(chunk))

    def _give_texts(self, texts: Iterable[str | bytes]) -> None:
        for text in texts:
            with suppress(ValueError):
                self._give(loads(text))

    def _give_all(self, values: Iterable[Any]) -> None:
        with suppress(ValueError):  # it has another framing
            for value in values:
                self._give(value)

    def _give(self, value: Any) -> None:
        try:
            piece = self._piece_of(value)
        except (AttributeError, LookupError, TypeError, ValueError):
            return
        if isinstance(piece, str) and piece:
            self.has_given = True
            self._on_piece(piece)
