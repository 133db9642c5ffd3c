"""What is asked of the engine beside generations: the hidden states of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["States"]


@dataclass(frozen=True)
class States:
    """The last hidden states of a prompt are wanted.

    Attributes:
        prompt: its tokens, one at least.
    """

    prompt: Sequence[int]
