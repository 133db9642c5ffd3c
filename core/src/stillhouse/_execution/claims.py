"""A stream that a caller waits for, on its way to the code of the backend that can give pieces."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import dataclass

from stillhouse.typing import OnPiece

__all__ = ["claimed", "offered"]


@dataclass(slots=True)
class _Offer:
    """A stream that somebody waits for, and the LLM that is asked for it."""

    llm: object
    on_piece: OnPiece | None


_offer: contextvars.ContextVar[_Offer | None] = contextvars.ContextVar("stream", default=None)


@contextlib.contextmanager
def offered(llm: object, on_piece: OnPiece) -> Iterator[None]:
    """Let this LLM claim a stream while the block runs."""
    token = _offer.set(_Offer(llm, on_piece))
    try:
        yield
    finally:
        _offer.reset(token)


def claimed(llm: object) -> OnPiece | None:
    """Return what takes the pieces of the stream that this LLM is asked for, once."""
    offer = _offer.get()
    if offer is None or offer.llm is not llm:
        return None
    on_piece, offer.on_piece = offer.on_piece, None
    return on_piece
