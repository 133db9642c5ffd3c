"""`tools/surface.py`: what can be seen of the core, compared between versions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "surface.py"


def surface(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def facts() -> list[str]:
    return surface().stdout.splitlines()


def test_surface_tool_lists_names_commands_exit_statuses_and_json(facts: list[str]) -> None:
    for fact in ("name stillhouse.LLM", "command generate", "json list.llms[].name: str"):
        assert fact in facts
    assert any(fact.startswith("option generate --limit ") for fact in facts)
    assert any(fact.startswith("exit generate Exit status: 0 all rows done") for fact in facts)


def test_surface_tool_reports_removed_and_added_items(facts: list[str], tmp_path: Path) -> None:
    before = tmp_path / "before.txt"
    moved = "name stillhouse.ledger.BatchLedger"  # by its old path, which still gives it
    before.write_text("\n".join([*facts[1:], "option generate --no-such", moved]))
    compared = surface("--against", before)
    assert (compared.returncode, compared.stdout) == (1, f"+ {facts[0]}\n- option generate --no-such\n")
    before.write_text("\n".join(facts))
    assert (surface("--against", before).returncode, surface("--against", before).stdout) == (0, "")
