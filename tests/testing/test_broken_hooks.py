"""For a plugin of hooks, a reader or a writer that breaks one rule, the kit reports that rule and no other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.testing import all_rules

from .test_broken import BROKEN, FINE

ELSEWHERE = {"Heavy": "G95", "Slow": "G94"}


def declared() -> dict[str, str]:
    """Each broken plugin, and the rule that it breaks, as the source says."""
    text = (BROKEN / "broken_hooks.py").read_text(encoding="utf-8")
    pairs = re.findall(r'^@breaks\("([GIO]\d\d)"\)\nclass (\w+)', text, re.MULTILINE)
    return {name: rule for rule, name in pairs} | ELSEWHERE


def distribution(folder: Path, name: str, entry_points: dict[str, str], requires: str, summary: str) -> None:
    """An installed distribution, as metadata alone."""
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: {summary}\nRequires-Dist: {requires}\n",
        encoding="utf-8",
    )
    lines = [f"{key} = {value}" for key, value in entry_points.items()]
    (metadata / "entry_points.txt").write_text(
        "\n".join(["[stillhouse.hooks]", *lines, ""]), encoding="utf-8"
    )


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What the kit says of each: the outcome of each rule."""
    folder = tmp_path_factory.mktemp("broken-hooks")
    (folder / "vllm.py").write_text("", encoding="utf-8")
    own = {"NotDeclared", "BadName", "NoRange", "NoSummary", *ELSEWHERE}
    points = {
        f"x-{name.lower()}": f"broken_hooks:{name}_plugin"
        for name, rule in declared().items()
        if rule.startswith("G") and name not in own
    }
    points |= {"x-good": "good_hooks:Good_plugin", "Bad_Name": "broken_hooks:BadName_plugin"}
    points |= {"x-heavy": "broken_heavy_hooks:Heavy_plugin", "x-slow": "broken_slow_hooks:Slow_plugin"}
    summary = "Broken on purpose"
    distribution(folder, "broken-hooks", points, "stillhouse>=0.1,<9", summary)
    distribution(folder, "broken-range", {"x-norange": "broken_hooks:NoRange_plugin"}, "stillhouse", summary)
    distribution(folder, "no-summary", {"x-quiet": "broken_hooks:NoSummary_plugin"}, "stillhouse>=0.1,<9", "")
    report = folder / "found.json"
    inherited = os.environ.get("PYTHONPATH")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, "-c", os.devnull,
         "--confcutdir", BROKEN, "--conformance-json", report, BROKEN / "hook_suites.py"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(BROKEN), str(folder), *filter(None, [inherited])]),
        },
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
    assert {id for id, outcome in outcomes[name].items() if outcome not in FINE} == {rule}


@pytest.mark.parametrize("name", ["Good", "Reads", "Writes"])
def test_one_that_keeps_every_rule_is_told_so(name: str, outcomes: dict[str, dict[str, str]]) -> None:
    assert not {rule: outcome for rule, outcome in outcomes[name].items() if outcome not in FINE}
    assert sum(outcome == "kept" for outcome in outcomes[name].values()) >= 10


def test_every_rule_is_broken_by_some_plugin() -> None:
    assert {rule.id for rule in all_rules() if rule.id[0] in "GIO"} == set(declared().values())
