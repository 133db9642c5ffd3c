"""A backend that breaks one rule is told that rule, and no other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stillhouse.testing import all_rules

BROKEN = Path(__file__).parent / "broken"
ELSEWHERE = {"Heavy": "C96", "Slow": "C95"}


def declared() -> dict[str, str]:
    """Each broken backend, and the rule that it breaks, as the source says."""
    text = (BROKEN / "broken_backends.py").read_text(encoding="utf-8")
    found = re.findall(r'^@breaks\("(C\d\d)"\)\nclass (\w+)\(', text, re.MULTILINE)
    return {name: rule for rule, name in found} | ELSEWHERE


def distribution(folder: Path, name: str, requires: str, entry_points: dict[str, str]) -> None:
    """An installed distribution, as metadata alone."""
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: Broken on purpose\n"
        f"Requires-Dist: {requires}\n",
        encoding="utf-8",
    )
    lines = [f"{key} = {value}" for key, value in entry_points.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[stillhouse.llms]", *lines, ""]), encoding="utf-8")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What the kit says of each backend: the outcome of each rule."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "vllm.py").write_text("", encoding="utf-8")
    ordinary = {name for name in declared() if name not in (*ELSEWHERE, "NotDeclared", "BadName", "NoRange")}
    entry_points = {f"x-{name.lower()}": f"broken_backends:{name}" for name in sorted(ordinary)}
    entry_points |= {"Bad_Name": "broken_backends:BadName"}
    entry_points |= {"x-heavy": "broken_heavy:Heavy", "x-slow": "broken_slow:Slow"}
    entry_points |= {"x-good": "good_backends:Good", "x-goodsync": "good_backends:GoodSync"}
    distribution(folder, "broken-backends", "stillhouse>=0.1,<9", entry_points)
    distribution(folder, "broken-range", "stillhouse", {"x-norange": "broken_backends:NoRange"})
    report = folder / "report.json"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, "-c", os.devnull,
         "--conformance-json", report, BROKEN / "suites.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(BROKEN), str(folder)])},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert report.exists(), result.stdout[-3000:] + result.stderr[-3000:]
    return {
        item["class"].rpartition("::Test")[2]: {rule["id"]: rule["outcome"] for rule in item["rules"]}
        for item in json.loads(report.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize(("name", "rule"), sorted(declared().items()))
def test_the_kit_names_the_rule_that_is_broken_and_no_other(
    name: str, rule: str, outcomes: dict[str, dict[str, str]]
) -> None:
    found = {id for id, outcome in outcomes[name].items() if outcome in ("broken", "warned")}
    assert found == {rule}


@pytest.mark.parametrize("name", ["Good", "GoodSync"])
def test_a_backend_that_keeps_every_rule_is_told_so(name: str, outcomes: dict[str, dict[str, str]]) -> None:
    assert set(outcomes[name].values()) <= {"kept", "skipped", "not declared"}


def test_every_rule_is_broken_by_some_backend() -> None:
    ids: set[Any] = {rule.id for rule in all_rules()}
    assert ids == set(declared().values())
