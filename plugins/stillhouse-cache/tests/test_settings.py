"""The path and the size of the cache: from the environment, else from the config file."""

from pathlib import Path
from typing import Any

import pytest

from stillhouse import ConfigurationError, Registry
from stillhouse.registry.policy import Policy
from stillhouse_cache import CacheHooks
from stillhouse_cache.cache import DATABASE


def ask(table: dict[str, Any]) -> CacheHooks:
    """Generate once with a cache that has these settings; the cache is closed."""
    hooks = CacheHooks()
    registry = Registry(entry_points=[], policy=Policy(hooks={"cache": table}))
    registry.register_hooks("cache", hooks)
    with registry.create("echo") as llm:
        llm.generate_outputs(["hello"])
    hooks.flush()
    return hooks


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STILLHOUSE_CACHE_DIR", raising=False)
    monkeypatch.delenv("STILLHOUSE_CACHE_SIZE", raising=False)


def test_the_config_file_names_the_folder_and_the_size(tmp_path: Path) -> None:
    hooks = ask({"path": str(tmp_path / "mine"), "size": "5MB"})
    assert (tmp_path / "mine" / DATABASE).exists()
    assert [size for _, size in hooks._caches] == [5_000_000]
    hooks.close()


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE_DIR", str(tmp_path / "theirs"))
    monkeypatch.setenv("STILLHOUSE_CACHE_SIZE", "7MB")
    hooks = ask({"path": str(tmp_path / "mine"), "size": 5_000_000})
    assert (tmp_path / "theirs" / DATABASE).exists()
    assert not (tmp_path / "mine").exists()
    assert [size for _, size in hooks._caches] == [7_000_000]
    hooks.close()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"pth": "/x"}, "there is no 'pth'"),
        ({"path": "relative/folder"}, "path: the path must be absolute, or begin with ~"),
        ({"size": "much"}, "size: it is not a size such as 2GB or 500MB"),
        ({"size": 5}, "size: the minimum size is 1MB"),
        ({"size": True}, "size: "),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ask(table)
    assert message in caught.value.message
