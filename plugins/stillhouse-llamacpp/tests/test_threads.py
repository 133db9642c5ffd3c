"""How many threads the engine computes with, and how they wait for each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse_llamacpp import threads
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
