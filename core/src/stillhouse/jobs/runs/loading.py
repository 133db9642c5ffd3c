"""`loaded` and `collecting_less`: what holds while a run works."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

from stillhouse._execution.bugs import naming_bugs
from stillhouse.llm import LLM

__all__ = ["collecting_less", "loaded"]

COLLECT_EVERY = 50_000
"""How many objects more than before make Python look for cycles."""


@contextlib.contextmanager
def loaded(llm: LLM) -> Iterator[None]:
    """Load an LLM, and unload it afterwards; one that its owner loaded stays so.

    Raises:
        GenerationError: loading or unloading raised what no backend means to raise.
    """
    if llm.is_loaded:
        yield
        return
    with naming_bugs(llm):
        llm.load()
    try:
        yield
    finally:
        with naming_bugs(llm):
            llm.unload()


@contextlib.contextmanager
def collecting_less() -> Iterator[None]:
    """Look for cycles of objects less often: a row makes hundreds of objects, which die without one.

    Looking at every 700th of them, as Python does of itself, is a twentieth of what a row costs.
    """
    before = gc.get_threshold()
    if before[0]:  # somebody may have turned it off
        gc.set_threshold(max(before[0], COLLECT_EVERY), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
