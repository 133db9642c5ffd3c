"""For an executor that breaks one rule, the kit reports that rule and no other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.testing import all_rules
from stillhouse.testing.desk import Desk

from .test_broken import BROKEN, FINE


def declared() -> dict[str, str]:
    """Each broken executor, and the rule that it breaks, as the source says."""
    text = (BROKEN / "broken_executors.py").read_text(encoding="utf-8")
    pairs = re.findall(r'^@breaks\("(X\d\d)"\)\nclass (\w+)', text, re.MULTILINE)
    return {name: rule for rule, name in pairs}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What the kit says of each: the outcome of each rule."""
    folder = tmp_path_factory.mktemp("broken-executors")
    report = folder / "found.json"
    inherited = os.environ.get("PYTHONPATH")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, "-c", os.devnull,
         "--confcutdir", BROKEN, "--conformance-json", report, BROKEN / "executor_suites.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(BROKEN), *filter(None, [inherited])])},
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


def test_one_in_the_process_of_the_run_keeps_every_rule(outcomes: dict[str, dict[str, str]]) -> None:
    assert {id: outcome for id, outcome in outcomes["Copy"].items() if outcome != "kept"} == {
        "X08": "skipped"  # the process of the run cannot die for one input
    }


def test_every_rule_is_broken_by_some_executor() -> None:
    assert {rule.id for rule in all_rules() if rule.id[0] == "X"} == set(declared().values())


WORKER = """
import os, sys
from stillhouse.testing.executed import ExecutedLLM
assert not {"pytest", "_pytest"} & sys.modules.keys()
from stillhouse.registry import Registry
from stillhouse.registry.policy import Policy
llm = ExecutedLLM(port=int(sys.argv[1]), home=os.getppid(), api_key="sk-of-nobody", tells_hooks=True)
llm.use_registry(Registry(entry_points=[], policy=Policy()))
with llm:
    for text in ("one", "die"):
        llm.generate_outputs([[{"role": "user", "content": text}]])
"""


@pytest.mark.parametrize("places", [[], ["command line"], ["environment"]])
def test_what_a_worker_shows_and_calls_is_seen(places: list[str], tmp_path: Path) -> None:
    """In a process of its own, where it imports no pytest: a key in sight, hooks that are called, its end."""
    program = tmp_path / "worker.py"
    program.write_text(WORKER)
    desk = Desk()
    desk.begin({"die": "die"})
    more = ["sk-of-nobody"] if "command line" in places else []
    variables = {"KEY": "sk-of-nobody"} if "environment" in places else {}
    ended = subprocess.run(
        [sys.executable, program, str(desk.port), *more], env={**os.environ, **variables}, check=False
    )
    assert ended.returncode == 3
    # Each connection of a process that ends is noticed in a thread of its own.
    assert desk.wait(lambda: not desk.alive and not desk.in_flight, 60)
    assert [asked.ended for asked in desk.asked] == [True, False]
    assert desk.hooks == 3  # before and after the first input, and before the second
    assert desk.exposed == places
    desk.close()
