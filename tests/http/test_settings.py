"""What a file or a `repr` shows of the settings of an LLM that asks a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stillhouse import LLM, ConfigurationError
from stillhouse.http.address import base_url_of
from stillhouse.registry import Registry

from .conftest import ScriptLLM

SECRET = "s3cr3t-value"


@pytest.fixture
def registry() -> Registry:
    registry = Registry(entry_points=[])
    registry.register("script", ScriptLLM)
    return registry


def test_secrets_of_address_headers_and_body_are_shown_nowhere(registry: Registry, tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "base_url": f"https://user:{SECRET}@h.test/v1?key={SECRET}&api-version=1",
        "default_headers": {"X-Odd": SECRET, "User-Agent": "me/1"},
    }
    llm = registry.create("script", model="m", **fields)
    assert SECRET not in repr(llm)
    for name in ("key=", "X-Odd", "api-version=1", "me/1"):
        assert name in repr(llm)
    llm.save(tmp_path / "llm.yaml")
    llm.save(tmp_path / "llm.json")
    for path in tmp_path.iterdir():
        assert SECRET not in path.read_text(encoding="utf-8")
        again = LLM.from_file(path, registry)
        assert isinstance(again, ScriptLLM)
        assert again.base_url == "https://h.test/v1?api-version=1"
        assert again.default_headers == {"User-Agent": "me/1"}
    assert SECRET not in json.dumps(llm.dump())


@pytest.mark.parametrize(
    "given",
    [
        "https://user:pa?PASSWORD@host/v1",
        "ftp://user:pa@PASSWORD@host/v1",
        "ftp://user:pa/PASSWORD@host/v1",
        "user:PASSWORD@host/v1",
        "https://user:PASSWORD@ho st/v1",
        "ftp://host/v1?key=PASSWORD",
        "ftp://host/v1#PASSWORD",
    ],
)
def test_an_address_that_is_none_is_not_quoted_with_its_secrets(given: str) -> None:
    """A login with an odd character in it was shown, and a host with a space was asked for."""
    with pytest.raises(ConfigurationError, match="is not an address") as caught:
        base_url_of(given, "v1", "set base_url")
    assert "PASSWORD" not in str(caught.value)
    assert "user" not in str(caught.value)
