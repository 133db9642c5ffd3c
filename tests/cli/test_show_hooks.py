"""`stillhouse show` of a plugin of hooks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest

import stillhouse

MODULE = '''
"""Counts the rows of a run."""

from stillhouse import hookimpl


@hookimpl
def settings_model():
    from pydantic import BaseModel, Field

    class Settings(BaseModel):
        many: int = Field(default=3, description="How many.")

    return Settings


@hookimpl
def configure(settings): ...


@hookimpl
def after_generate(row): ...
'''


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with one plugin of hooks, and one that is broken."""
    (tmp_path / "counting_hooks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "counting_hooks", raising=False)
    points = [
        importlib_metadata.EntryPoint(name, module, "stillhouse.hooks")
        for name, module in (("counting", "counting_hooks"), ("absent", "no_such_module"))
    ]
    monkeypatch.setattr("stillhouse.registry.registry._default", stillhouse.Registry(entry_points=points))


def test_a_hook_is_shown_with_its_hooks_and_settings(run: Any, counting: None) -> None:
    result = run("show", "counting")
    assert (result.status, result.err) == (0, "")
    assert "Counts the rows of a run." in result.out
    assert "hooks: after_generate, configure, settings_model" in result.out
    assert "settings ([hooks.counting] in " in result.out
    assert any(line.split() == ["many", "int", "3", "How", "many."] for line in result.out.splitlines())


def test_a_hook_is_shown_as_json(run: Any, counting: None) -> None:
    shown = json.loads(run("show", "counting", "--json").out)
    assert shown["hooks"] == ["after_generate", "configure", "settings_model"]
    assert shown["settings"] == [
        {"name": "many", "type": "int", "required": False, "default": 3, "description": "How many."}
    ]


def test_a_broken_hook_is_reported_when_it_is_shown(run: Any, counting: None) -> None:
    result = run("show", "absent")
    assert result.status == 1
    assert 'error[E201] hook "absent" could not be imported' in result.err


def test_a_name_that_is_neither_is_an_unknown_llm(run: Any, counting: None) -> None:
    result = run("show", "countin")
    assert result.status == 1
    assert 'there is no LLM "countin"' in result.err
