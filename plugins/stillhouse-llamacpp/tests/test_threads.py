"""How many threads the engine computes with, and how they wait for each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse_llamacpp import crowding, threads
from stillhouse_llamacpp.crowding import Crowding, waited_seconds
from stillhouse_llamacpp.threads import SPIN_COUNT, brief_waits, usable_cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the wheels for Linux use GNU's OpenMP")


def variables() -> dict[str, str]:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    return {name: os.environ[name] for name in names if name in os.environ}


def test_the_environment_is_what_it_was_after_the_engine_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables():
        monkeypatch.delenv(name)
    with brief_waits():
        assert variables() == {"GOMP_SPINCOUNT": str(SPIN_COUNT)}
    assert variables() == {}
    with pytest.raises(ImportError), brief_waits():
        raise ImportError
    assert variables() == {}


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "active")])
def test_what_the_user_says_of_waiting_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    for given in variables():
        monkeypatch.delenv(given)
    monkeypatch.setenv(name, value)
    with brief_waits():
        assert variables() == {name: value}
    assert variables() == {name: value}


@pytest.mark.model
def test_the_library_reads_how_long_threads_spin() -> None:
    """As it says itself, when it is loaded."""
    own = {
        key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    script = (
        "import os\nfrom stillhouse_llamacpp import LlamaCppLLM\n"
        "with LlamaCppLLM(parallel=1, n_ctx=256): pass\n"
        "assert 'GOMP_SPINCOUNT' not in os.environ\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**own, "OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in done.stderr


def test_an_engine_that_may_use_every_core_chooses_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(threads, "_siblings", str)
    monkeypatch.setattr(threads, "_quota", lambda: None)
    assert usable_cores() is None
    monkeypatch.setattr(threads, "_quota", lambda: 4.0)
    assert usable_cores() is None


@pytest.mark.parametrize(
    ("processors", "quota", "expected"),
    [({0}, None, 1), ({0, 1, 2}, None, 2), (range(8), 1.5, 2), ({0, 1, 2, 3}, 0.5, 1)],
)
def test_a_process_with_fewer_cores_computes_with_fewer_threads(
    monkeypatch: pytest.MonkeyPatch, processors: set[int], quota: float | None, expected: int
) -> None:
    """On a machine of four cores with two processors each: 0 and 1 are one core."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(processors))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(threads, "_siblings", lambda processor: str(processor // 2))
    monkeypatch.setattr(threads, "_quota", lambda: quota)
    assert usable_cores() == expected


@pytest.mark.model
def test_a_process_on_one_core_computes_with_one_thread(weights: Path) -> None:
    script = (
        "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from stillhouse_llamacpp import LlamaCppLLM\n"
        "with LlamaCppLLM(parallel=1, n_ctx=256, verbose=True): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "n_threads = 1\n" in done.stderr


class Machine:
    """A clock, and how long the threads waited for a core until then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.waited = 100.0, 7.0
        monkeypatch.setattr(crowding.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(crowding, "waited_seconds", lambda: self.waited)

    def pass_(self, seconds: float, waiting: float) -> None:
        self.now += seconds
        self.waited += waiting


def test_a_crowded_machine_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, told = Machine(monkeypatch), []
    watch = Crowding(told.append)
    for seconds, waiting in [(1.0, 1.0), (60.0, 2.0)]:  # too short to say; too little of the time
        machine.pass_(seconds, waiting)
        watch.look()
    assert told == []
    for _ in range(3):
        machine.pass_(10.0, 6.0)
        watch.look()
    assert told == [
        "llamacpp is slow because other programs use the processor: in 10 s its threads waited 6 s for a core"
    ]


def test_a_system_that_does_not_say_how_long_threads_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowding, "waited_seconds", lambda: None)
    watch = Crowding(pytest.fail)
    monkeypatch.setattr(crowding, "INTERVAL", 0.0)
    watch.look()


def test_the_system_says_how_long_threads_wait() -> None:
    before = waited_seconds()
    assert before is not None
    assert before >= 0
