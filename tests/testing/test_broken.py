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
SHARES = 5
ELSEWHERE = {"Heavy": "C96", "Slow": "C95"}


def declared() -> dict[str, str]:
    """Each broken backend, and the rule that it breaks, as the source says."""
    found = ELSEWHERE.copy()
    for module in ("broken_backends", "broken_http"):
        text = (BROKEN / f"{module}.py").read_text(encoding="utf-8")
        pairs = re.findall(r'^@breaks\("([CH]\d\d)"\)\nclass (\w+)\(', text, re.MULTILINE)
        found |= {name: rule for rule, name in pairs}
    return found


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
    entry_points = {"x-goodhttp": "broken_http:GoodHTTP"}
    for name, rule in declared().items():
        if name not in (*ELSEWHERE, "NotDeclared", "BadName", "NoRange"):
            module = "broken_http" if rule.startswith("H") else "broken_backends"
            entry_points[f"x-{name.lower()}"] = f"{module}:{name}"
    entry_points |= {"Bad_Name": "broken_backends:BadName"}
    entry_points |= {"x-heavy": "broken_heavy:Heavy", "x-slow": "broken_slow:Slow"}
    entry_points |= {"x-good": "good_backends:Good", "x-goodsync": "good_backends:GoodSync"}
    distribution(folder, "broken-backends", "stillhouse>=0.1,<9", entry_points)
    distribution(folder, "broken-range", "stillhouse", {"x-norange": "broken_backends:NoRange"})
    runs = [start(folder, "suites.py", "")]
    runs += [start(folder, "http_suites.py", f"{share}/{SHARES}") for share in range(SHARES)]
    found = {}
    for process, report in runs:
        printed, _ = process.communicate()
        assert report.exists(), printed[-3000:]
        for item in json.loads(report.read_text(encoding="utf-8")):
            name = item["class"].rpartition("::Test")[2]
            found[name] = {rule["id"]: rule["outcome"] for rule in item["rules"]}
    return found


def start(folder: Path, suites: str, share: str) -> tuple[subprocess.Popen[str], Path]:
    """Run the kit on backends in a process of its own; with the file that it reports to."""
    report = folder / f"{suites}-{share.replace('/', '-')}.json"
    # Of those that ask a server, the rules on requests; all others hold as for every backend.
    chosen = "test_h or TestGoodHTTP" if share else ""
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, "-c", os.devnull,
         "--confcutdir", BROKEN,  # nothing of these tests' own
         "--conformance-json", report, "-k", chosen, BROKEN / suites],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(BROKEN), str(folder)]),
            "BROKEN_SHARE": share,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    return process, report


@pytest.mark.parametrize(("name", "rule"), sorted(declared().items()))
def test_the_kit_names_the_rule_that_is_broken_and_no_other(
    name: str, rule: str, outcomes: dict[str, dict[str, str]]
) -> None:
    found = {id for id, outcome in outcomes[name].items() if outcome in ("broken", "warned")}
    assert found == {rule}


@pytest.mark.parametrize("name", ["Good", "GoodHTTP", "GoodSync"])
def test_a_backend_that_keeps_every_rule_is_told_so(name: str, outcomes: dict[str, dict[str, str]]) -> None:
    assert set(outcomes[name].values()) <= {"kept", "skipped", "not declared"}


def test_every_rule_is_broken_by_some_backend() -> None:
    ids: set[Any] = {rule.id for rule in all_rules()}
    assert ids == set(declared().values())
