from collections.abc import Iterator
from pathlib import Path

import pytest

from stillhouse import Registry
from stillhouse.registry.policy import Policy
from stillhouse_cache import CacheHooks


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("STILLHOUSE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("STILLHOUSE_CACHE_SIZE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def hooks(folder: Path) -> Iterator[CacheHooks]:
    hooks = CacheHooks()
    yield hooks
    hooks.close()


@pytest.fixture
def registry(hooks: CacheHooks) -> Registry:
    """A registry with the cache and nothing else that is installed."""
    registry = Registry(entry_points=[], policy=Policy())
    registry.register_hooks("cache", hooks)
    return registry
