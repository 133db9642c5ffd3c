"""Prompt caching: a beginning that prompts share is read once."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Prefixes", "common_length"]

# Tokens that a cache must save to be worth a pass of its own.
_WORTH = 16

# How many of the last prompts a prompt is compared with.
_RECENT = 8


def common_length(a: list[int], b: list[int]) -> int:
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
    tokens: list[int]
    cache: list[Any]

    def usable(self, head: list[int]) -> int:
        """How many of its tokens are of use for a prompt that begins with `head`."""
        length = common_length(self.tokens, head)
        if length == len(self.tokens) or all(part.is_trimmable() for part in self.cache):
            return length
        return 0

    def first(self, length: int) -> list[Any]:
        """The cache of its first tokens. The arrays stay those of the whole."""
        if length == len(self.tokens):
            return self.cache
        parts = [copy.copy(part) for part in self.cache]
        for part in parts:
            part.trim(len(self.tokens) - length)
        return parts


class Prefixes:
    """Caches of beginnings that prompts share: of a run's system message, or a prompt that is asked again.

    What two prompts have in common is read by itself when the second one comes, and what the model
    remembers of it is kept. A prompt that begins in the same way goes on from there.

    Args:
        read: makes the model read tokens, after those that it remembers in a cache, to which it writes,
            or from the beginning if that is `None`; returns the cache.
        size: how many beginnings are kept, those that were used last.
    """

    def __init__(self, read: Callable[[list[int], list[Any] | None], list[Any]], size: int) -> None:
        self._read = read
        self._size = size
        self._kept: list[_Beginning] = []  # the one that was used last is the last
        self._recent: deque[list[int]] = deque(maxlen=_RECENT)

    def take(self, prompt: list[int]) -> tuple[int, list[Any] | None]:
        """Return how many tokens of a prompt need not be read, and the cache with them.

        The last token is always left: what follows it is what is wanted.

        Returns:
            The number, and a cache that may be copied from, but not written to; 0 and `None` if there
            is nothing to begin with.
        """
        head = prompt[:-1]
        length, best = 0, None
        for beginning in self._kept:
            if (usable := beginning.usable(head)) > length:
                length, best = usable, beginning
        seen = max((common_length(recent, head) for recent in self._recent), default=0)
        self._recent.append(prompt)
        if seen >= length + _WORTH:
            start = None if best is None else copy.deepcopy(best.first(length))
            best = _Beginning(head[:seen], self._read(head[length:seen], start))
            length = seen
        elif best is None or length < _WORTH:
            return 0, None
        else:
            self._kept.remove(best)
        self._kept.append(best)
        del self._kept[: -self._size]
        return length, best.first(length)
