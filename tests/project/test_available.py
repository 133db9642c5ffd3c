"""The table of what could be installed is that of the plugins here, and others' tables stay as they are."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stillhouse.registry.available import available, packages
from stillhouse.registry.candidates import normalize

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "available.py"
TABLE = "core/src/stillhouse/registry/available.toml"

PLUGIN = """
[project]
name = "stillhouse-acme"
version = "0.1.0"
description = "Acme's models"
[project.entry-points."stillhouse.llms"]
acme = "stillhouse_acme:AcmeLLM"
"""


def tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True)


def test_table_is_current() -> None:
    checked = tool("--check")
    assert checked.returncode == 0, checked.stderr


def test_every_entry_can_be_installed_and_asked_for() -> None:
    for item in available():
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", item.name)
        assert item.distribution == normalize(item.distribution)
        assert item.summary.strip() == item.summary != ""
        assert item.summary.isprintable()
    assert len({(item.kind, item.name, item.distribution) for item in available()}) == len(available())
    assert packages()["openai"] == "stillhouse-openai"
    assert "cache" not in packages()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one plugin, and a table in which somebody else's package is."""
    sources = tmp_path / "plugins" / "stillhouse-acme" / "src" / "stillhouse_acme"
    sources.mkdir(parents=True)
    (sources / "__init__.py").write_text(
        'class AcmeLLM:\n    """Large \\"models\\" of Acme. And more."""\n\n'
        'class SmallLLM:\n    """Small models of Acme: a \\\\ in it."""\n',
        encoding="utf-8",
    )
    (sources.parents[1] / "pyproject.toml").write_text(PLUGIN, encoding="utf-8")
    table = tmp_path / TABLE
    table.parent.mkdir(parents=True)
    table.write_text('[llms.other-llm]\nother = "Somebody else\'s"\n', encoding="utf-8")
    return tmp_path


def test_rewriting_keeps_what_others_wrote(checkout: Path) -> None:
    at = ("--root", checkout)
    assert tool("--check", *at).returncode == 1
    assert "is not current: python tools/available.py --rewrite" in tool("--check", *at).stderr
    assert tool("--rewrite", *at).returncode == 0
    assert tool("--check", *at).returncode == 0
    tables = tomllib.loads((checkout / TABLE).read_text(encoding="utf-8"))
    assert tables == {
        "llms": {"other-llm": {"other": "Somebody else's"}, "stillhouse-acme": {"acme": "Acme's models"}}
    }
    project = checkout / "plugins" / "stillhouse-acme" / "pyproject.toml"
    project.write_text(f'{PLUGIN}small = "stillhouse_acme:SmallLLM"\n', encoding="utf-8")
    stale = tool("--check", *at)
    assert stale.returncode == 1
    assert 'has    acme = "Acme\'s models"' in stale.stderr
    tool("--rewrite", *at)
    tables = tomllib.loads((checkout / TABLE).read_text(encoding="utf-8"))
    assert tables["llms"]["stillhouse-acme"] == {
        "acme": 'Large \\"models\\" of Acme', "small": "Small models of Acme: a \\\\ in it",
    }  # fmt: skip
    assert "other-llm" in tables["llms"]
