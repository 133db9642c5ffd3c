"""For an executor that breaks one rule, the kit reports that rule and no other."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stillhouse.testing import all_rules
from stillhouse.testing.desk import Desk

from .test_broken import BROKEN, EVERY, FINE, cases


def declared(every: int = 1) -> dict[str, str]:
    """Each broken executor, and the rule that it breaks, as the source says; or one in `every`."""
    text = (BROKEN / "broken_executors.py").read_text(encoding="utf-8")
    pairs = re.findall(r'^@breaks\("(X\d\d)"\)\nclass (\w+)', text, re.MULTILINE)
    return {name: rule for rule, name in pairs[::every]}


CASES = cases(declared)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, dict[str, str]]]:
    """Of one executor in so many, what the kit says: the outcome of each rule."""
    return functools.cache(functools.partial(run_the_kit, tmp_path_factory))


def run_the_kit(tmp_path_factory: pytest.TempPathFactory, every: int) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("broken-executors")
    report = folder / "found.json"
    inherited = os.environ.get("PYTHONPATH")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, "-c", os.devnull,
         "--confcutdir", BROKEN, "--conformance-json", report, BROKEN / "executor_suites.py"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(BROKEN), *filter(None, [inherited])]),
            "BROKEN_EVERY": str(every),
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


@pytest.mark.parametrize(("every", "name", "rule"), CASES)
def test_the_kit_names_the_rule_that_is_broken_and_no_other(
    every: int, name: str, rule: str, outcomes: Callable[[int], dict[str, dict[str, str]]]
) -> None:
    found = outcomes(every)
    assert {id for id, outcome in found[name].items() if outcome not in FINE} == {rule}


@pytest.mark.parametrize("every", EVERY)
def test_one_in_the_process_of_the_run_keeps_every_rule(
    every: int, outcomes: Callable[[int], dict[str, dict[str, str]]]
) -> None:
    assert {id: outcome for id, outcome in outcomes(every)["Copy"].items() if outcome != "kept"} == {
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
