"""For a backend that breaks one rule, the kit reports that rule and no other."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.testing import all_rules

BROKEN = Path(__file__).parent / "broken"
# All of them take minutes: they run once, and on every interpreter one in so many of each file.
SAMPLE = 5
KEEPING_OVER_HTTP = [
    "GoodHTTP", "InPieces", "KeyInTheQuery", "Packed", "Polled", "PolledCarelessly", "Signing", "Streaming",
]  # fmt: skip
ELSEWHERE = {"Heavy": "C96", "Slow": "C95"}


def declared(every: int = 1) -> dict[str, str]:
    """Each broken backend, and the rule that it breaks, as the source says; or one in `every` of a file."""
    found = ELSEWHERE.copy()
    for module in ("broken_backends", "broken_http"):
        text = (BROKEN / f"{module}.py").read_text(encoding="utf-8")
        pairs = re.findall(r'^@breaks\("([CH]\d\d)"\)\nclass (\w+)\(', text, re.MULTILINE)
        found |= {name: rule for rule, name in pairs[::every]}
    return found


FINE = ("kept", "skipped", "not declared")

EVERY = [pytest.param(1, id="all", marks=pytest.mark.environment), pytest.param(SAMPLE, id="sample")]


def cases(declared: Callable[[int], dict[str, str]]) -> list[Any]:
    """Each of `declared` for one environment, and a sample of them for every interpreter."""
    return [
        pytest.param(every.values[0], name, rule, id=f"{every.id}-{name}-{rule}", marks=every.marks)
        for every in EVERY
        for name, rule in sorted(declared(every.values[0]).items())  # type: ignore[arg-type]
    ]


CASES = cases(declared)


def distribution(
    folder: Path, name: str, requires: str, entry_points: dict[str, str], group: str = "stillhouse.llms"
) -> None:
    """An installed distribution, as metadata alone."""
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: Broken on purpose\n"
        f"Requires-Dist: {requires}\n",
        encoding="utf-8",
    )
    lines = [f"{key} = {value}" for key, value in entry_points.items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]), encoding="utf-8")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, dict[str, str]]]:
    """Of one backend in so many, what the kit says: the outcome of each rule."""
    return functools.cache(functools.partial(run_the_kit, tmp_path_factory))


def run_the_kit(tmp_path_factory: pytest.TempPathFactory, every: int) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("broken")
    (folder / "vllm.py").write_text("", encoding="utf-8")
    entry_points = {f"x-{name.lower()}": f"broken_http:{name}" for name in KEEPING_OVER_HTTP}
    for name, rule in declared().items():
        if name not in (*ELSEWHERE, "NotDeclared", "BadName", "NoRange"):
            module = "broken_http" if rule.startswith("H") else "broken_backends"
            entry_points[f"x-{name.lower()}"] = f"{module}:{name}"
    entry_points |= {"Bad_Name": "broken_backends:BadName"}
    entry_points |= {"x-heavy": "broken_heavy:Heavy", "x-slow": "broken_slow:Slow"}
    entry_points |= {"x-good": "good_backends:Good", "x-goodsync": "good_backends:GoodSync"}
    distribution(folder, "broken-backends", "stillhouse>=0.1,<9", entry_points)
    distribution(folder, "broken-range", "stillhouse", {"x-norange": "broken_backends:NoRange"})
    shares = 5 if every == 1 else 2
    runs = [start(folder, "suites.py", "", every)]
    runs += [start(folder, "http_suites.py", f"{share}/{shares}", every) for share in range(shares)]
    found = {}
    for process, report in runs:
        printed, _ = process.communicate()
        assert report.exists(), printed[-3000:]
        for item in json.loads(report.read_text(encoding="utf-8")):
            name = item["class"].rpartition("::Test")[2]
            found[name] = {rule["id"]: rule["outcome"] for rule in item["rules"]}
    return found


def start(folder: Path, suites: str, share: str, every: int) -> tuple[subprocess.Popen[str], Path]:
    """Run the kit on backends in a process of its own; with the file that it reports to."""
    inherited = os.environ.get("PYTHONPATH")
    report = folder / f"{suites}-{share.replace('/', '-')}.json"
    # Of those that ask a server, the rules on requests; all others hold as for every backend.
    chosen = " or ".join(["test_h", *(f"Test{name}" for name in KEEPING_OVER_HTTP)]) if share else ""
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, "-c", os.devnull,
         "--confcutdir", BROKEN,  # nothing of these tests' own
         "--conformance-json", report, "-k", chosen, BROKEN / suites],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(BROKEN), str(folder), *filter(None, [inherited])]),
            "BROKEN_SHARE": share,
            "BROKEN_EVERY": str(every),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    return process, report


@pytest.mark.parametrize(("every", "name", "rule"), CASES)
def test_the_kit_names_the_rule_that_is_broken_and_no_other(
    every: int, name: str, rule: str, outcomes: Callable[[int], dict[str, dict[str, str]]]
) -> None:
    found = {id for id, outcome in outcomes(every)[name].items() if outcome in ("broken", "warned")}
    assert found == {rule}


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("name", ["Good", "GoodSync", *KEEPING_OVER_HTTP])
def test_a_backend_that_keeps_every_rule_is_told_so(
    every: int, name: str, outcomes: Callable[[int], dict[str, dict[str, str]]]
) -> None:
    other = {rule: outcome for rule, outcome in outcomes(every)[name].items() if outcome not in FINE}
    assert not other


def test_every_rule_is_broken_by_some_backend() -> None:
    ids: set[Any] = {rule.id for rule in all_rules() if rule.id[0] in "CH"}
    assert ids == set(declared().values())
