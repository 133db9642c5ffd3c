"""Prompt caching: a beginning that prompts share is read once."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Prefixes", "common_length"]

# Tokens that a cache must save to be worth a pass of its own.
_WORTH = 16

# How many of the last prompts a prompt is compared with.
_RECENT = 8


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two prompts have in common at their beginning."""
    shared, rest = 0, min(len(a), len(b))
    while shared < rest:  # everything before `shared` is alike; nothing is from `rest` on
        middle = (shared + rest + 1) // 2
        if a[shared:middle] == b[shared:middle]:
            shared = middle
        else:
            rest = middle - 1
    return shared


@dataclass(eq=False)
class _Beginning:
    tokens: Sequence[int]
    cache: list[Any]

    def usable(self, head: Sequence[int]) -> int:
        """How many of its tokens are of use for a prompt that begins with `head`."""
        length = common_length(self.tokens, head)
        if length == len(self.tokens) or all(part.is_trimmable() for part in self.cache):
            return length
        return 0

    def first(self, length: int) -> list[Any] | None:
        """A cache of its first tokens, to be written to; `None` if that cannot be had.

        Copies share their arrays until one of them is written to.
        """
        parts = copy.deepcopy(self.cache)
        rest = len(self.tokens) - length
        if rest and any(part.trim(rest) != rest for part in parts):
            return None
        return parts


class Prefixes:
    """Caches of beginnings that prompts share: of a run's system message, or a prompt that is asked again.

    What two prompts have in common is read by itself when the second one comes, and what the model
    remembers of it is kept. A prompt that begins in the same way goes on from there.

    Args:
        read: makes the model read tokens, after those that it remembers in a cache, to which it writes,
            or from the beginning if that is `None`; returns the cache.
        size: how many beginnings are kept, those that were used last.
        tokens: how many tokens they have together at most.

    Attributes:
        saved: how many tokens of all prompts need not have been read again.
    """

    def __init__(
        self, read: Callable[[Sequence[int], list[Any] | None], list[Any]], size: int, tokens: int
    ) -> None:
        self._read = read
        self._size = size
        self._tokens = tokens
        self.saved = 0
        self._kept: list[_Beginning] = []  # the one that was used last is the last
        self._recent: deque[Sequence[int]] = deque(maxlen=_RECENT)

    def take(self, prompt: Sequence[int]) -> tuple[int, list[Any] | None]:
        """Return how many tokens of a prompt need not be read, and a cache with them.

        The last token is always left: what follows it is what is wanted.

        Returns:
            The number, and a cache that may be written to; 0 and `None` if there is nothing to begin
            with.
        """
        head = prompt[:-1]
        length, best = self._longest(head)
        seen = max((common_length(recent, head) for recent in self._recent), default=0)
        self._recent.append(prompt)
        cache = None if best is None else best.first(length)
        if cache is None:
            length = 0
        elif best is not None:
            self._kept.remove(best)
            self._kept.append(best)
        if seen >= length + _WORTH:
            kept = _Beginning(head[:seen], self._read(head[length:seen], cache))
            self._keep(kept)
            self.saved += length
            return seen, kept.first(seen)
        self.saved += length
        return length, cache

    def _longest(self, head: Sequence[int]) -> tuple[int, _Beginning | None]:
        """The beginning that is of most use, and of how much."""
        length, best = _WORTH - 1, None
        for beginning in self._kept:
            if (usable := beginning.usable(head)) > length:
                length, best = usable, beginning
        return (0, None) if best is None else (length, best)

    def _keep(self, beginning: _Beginning) -> None:
        self._kept.append(beginning)
        del self._kept[: -self._size]
        while sum(len(kept.tokens) for kept in self._kept) > self._tokens:
            del self._kept[0]

    def clear(self) -> None:
        """Let go of all that is kept."""
        self._kept.clear()
        self._recent.clear()
