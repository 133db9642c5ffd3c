"""The kit itself: no rule is overridden silently, and the outcome of every rule is reported."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stillhouse import LLM, EchoLLM
from stillhouse.testing import LLMConformance, all_rules

ROOT = Path(__file__).parents[2]
ORDER = "test_c01_outputs_are_in_the_order_of_the_inputs"

AUTHORS = """
import pytest
from stillhouse import EchoLLM
from stillhouse.testing import LLMConformance

class Rude(EchoLLM):
    def __repr__(self):
        return "Rude"

    def __exit__(self, *exc_info):
        pass

class TestRude(LLMConformance):
    def make(self):
        return Rude()

    @pytest.mark.xfail(reason="it is slow to leave")
    def test_c22_a_with_statement_loads_and_unloads(self):
        super().test_c22_a_with_statement_loads_and_unloads()
"""


def make(self: Any) -> LLM:
    return EchoLLM()


def left_out(*marks: pytest.MarkDecorator) -> Any:
    """An override that checks nothing, marked."""

    def leave_out(self: Any) -> None:
        pass

    for mark in marks:
        leave_out = mark(leave_out)
    return leave_out


class Mixin:
    test_c01_outputs_are_in_the_order_of_the_inputs = left_out()


@pytest.mark.parametrize(
    ("bases", "members"),
    [
        pytest.param((), {ORDER: left_out()}, id="overridden"),
        pytest.param((), {ORDER: None}, id="deleted"),
        pytest.param((Mixin,), {}, id="by a mixin"),
        pytest.param((), {ORDER: left_out(pytest.mark.skip(reason="no time"))}, id="skipped"),
        pytest.param((), {ORDER: left_out(pytest.mark.xfail)}, id="xfail without a reason"),
    ],
)
def test_a_rule_is_not_left_out_in_silence(bases: tuple[type, ...], members: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"overrides the test of C01 \(Outputs come in the order.*xfail"):
        type("TestMine", (*bases, LLMConformance), {"make": make, **members})


def test_a_rule_may_be_left_out_openly() -> None:
    override = left_out(pytest.mark.xfail(reason="one queue for all"))
    mine: Any = type("TestMine", (LLMConformance,), {"make": make, ORDER: override})
    assert mine.__dict__[ORDER].conformance_rule.id == "C01"


def test_a_name_of_the_kit_is_not_taken_by_accident() -> None:
    with pytest.raises(TypeError, match=r"TestMine\.loaded: the kit has a member of this name"):
        type("TestMine", (LLMConformance,), {"make": make, "loaded": left_out()})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Any]:
    """What pytest prints for an author, and what it writes."""
    folder = tmp_path_factory.mktemp("author")
    (folder / "test_rude.py").write_text(AUTHORS, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "c22 or c73 or c91 or c95"]
    command += ["--conformance-json", "outcomes.json"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return result, json.loads((folder / "outcomes.json").read_text(encoding="utf-8"))


def test_the_outcome_of_every_rule_is_written(run: tuple[Any, Any]) -> None:
    _, (written,) = run
    assert written["class"] == "test_rude.py::TestRude"
    assert written["backend"] == "test_rude.Rude"
    outcomes = {rule["id"]: (rule["outcome"], rule["capability"]) for rule in written["rules"]}
    assert outcomes == {
        "C22": ("xfail", None),
        "C73": ("not declared", "images"),
        "C91": ("broken", None),
        "C95": ("skipped", None),
    }


def test_a_failure_says_which_rule_and_what_to_do(run: tuple[Any, Any]) -> None:
    printed = run[0].stdout
    assert run[0].returncode == 1
    assert "C91 is broken: An installed distribution declares an entry point" in printed
    assert "seen  none of the entry points in stillhouse.llms leads to test_rude:Rude" in printed
    assert '[project.entry-points."stillhouse.llms"]' in printed
    assert "1 broken, 1 not declared, 1 skipped, 1 xfail" in printed
    assert "it is slow to leave" in printed


def test_importing_the_pytest_plugin_does_not_import_the_kit() -> None:
    code = "import stillhouse.testing.plugin, sys; print(sorted(n for n in sys.modules if 'stillhouse' in n))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert ast.literal_eval(printed) == [
        "stillhouse", "stillhouse._defaults", "stillhouse._deprecated", "stillhouse._lazy", "stillhouse.testing", "stillhouse.testing.plugin",
    ]  # fmt: skip


def test_every_rule_can_be_read_without_the_http_extra() -> None:
    """An author of hooks, or of an engine, installs `stillhouse[testing]` alone."""
    code = (
        "import sys\n"
        "for name in ('aiohttp', 'orjson'):\n"
        "    sys.modules[name] = None\n"
        "from stillhouse.testing import all_rules\n"
        "print(len(all_rules()))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == len(all_rules())


def test_the_page_has_every_rule() -> None:
    text = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| [A-Z]\d\d ", line)]
    assert rows == [f"| {rule.id} | {rule.capability or ''} | {rule.promise} |" for rule in all_rules()]


def test_rules_newer_than_a_version_are_skipped_on_request(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from stillhouse import EchoLLM\n"
        "from stillhouse.testing import LLMConformance\n\n\n"
        "class TestEcho(LLMConformance):\n"
        "    def make(self):\n"
        "        return EchoLLM()\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--conformance-json",
        "found.json",
    ]
    subprocess.run(
        [*command, "--conformance-until", "0.1"], cwd=tmp_path, check=True, capture_output=True, timeout=300
    )
    (backend,) = json.loads((tmp_path / "found.json").read_text())
    skipped = {item["id"] for item in backend["rules"] if item["detail"] == "new in 0.2"}
    new = {item.id for item in all_rules() if item.since == "0.2"}
    assert skipped == {id for id in new if id.startswith("C")}
    assert {"C00", "C12", "C13", "C14", "C15", "C29", "C52"} <= skipped
    assert any(item["outcome"] == "kept" for item in backend["rules"])
