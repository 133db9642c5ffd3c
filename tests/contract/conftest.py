from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from stillhouse.registry import Registry

from .support import own_threads


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    """Every test ends without a thread of an LLM, and without having set anybody's event loop."""
    policy = asyncio.get_event_loop_policy()
    yield
    if own_threads():
        gc.collect()
    assert own_threads() == []
    assert asyncio.get_event_loop_policy() is policy


@pytest.fixture
def registry() -> Registry:
    """A registry of its own: nothing is installed, nothing registered but `echo`."""
    return Registry(entry_points=[])
