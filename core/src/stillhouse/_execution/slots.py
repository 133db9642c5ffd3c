"""`Slots`: how many calls of one LLM are in flight, and which calls the running code is part of."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque

__all__ = ["Slots", "current_input", "inside"]

inside: contextvars.ContextVar[tuple[Slots, ...]] = contextvars.ContextVar("inside", default=())
"""The slots of the LLMs whose calls the running code is part of."""

current_input: contextvars.ContextVar[int | None] = contextvars.ContextVar("current_input", default=None)
"""The index of the input that the running code works on, of the outermost LLM."""


class Slots:
    """The calls in flight of one LLM, in however many windows. Touched by its loop alone."""

    def __init__(self) -> None:
        self.taken = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self, limit: int) -> None:
        """Wait until fewer than `limit` calls are in flight, and count as one more."""
        if self.taken < limit:
            self.taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Give the slot to the call that has waited longest."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.taken -= 1
