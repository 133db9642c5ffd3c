"""Outputs are stored in groups: bounded, found while they wait, and lost with the last group at most."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import Registry
from stillhouse_cache import CacheHooks
from stillhouse_cache.cache import DATABASE, Cache
from stillhouse_cache.store import Store

MEGABYTE = 1_000_000
PATIENCE = 60.0


def stored(folder: Path) -> int:
    """How many outputs another process would find."""
    if not (folder / DATABASE).exists():
        return 0
    connection = sqlite3.connect(folder / DATABASE)
    (count,) = connection.execute("SELECT count(*) FROM entry").fetchone()
    connection.close()
    return int(count)


@pytest.fixture
def no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups are bounded by their size alone."""
    monkeypatch.setattr("stillhouse_cache.cache.GROUP_SECONDS", 3600.0)


@pytest.fixture
def cache(tmp_path: Path, no_timer: None) -> Any:
    cache = Cache(tmp_path, 100 * MEGABYTE)
    yield cache
    cache.close()


def key(number: int) -> bytes:
    return number.to_bytes(32)


def test_what_waits_is_found_and_not_yet_stored(cache: Cache, tmp_path: Path) -> None:
    cache.put(key(1), b"one")
    assert cache.get(key(1)) == b"one"
    assert stored(tmp_path) == 0
    cache.flush()
    assert stored(tmp_path) == 1
    assert cache.get(key(1)) == b"one"


def test_a_group_is_bounded_by_its_number(cache: Cache, tmp_path: Path) -> None:
    size = cache._store.group_entries
    for number in range(size - 1):
        cache.put(key(number), b"v")
    assert stored(tmp_path) == 0
    cache.put(key(size), b"v")
    assert stored(tmp_path) == size
    assert not cache._waiting


def test_a_group_is_bounded_by_its_bytes(cache: Cache, tmp_path: Path) -> None:
    cache.put(key(1), bytes(cache._store.group_bytes // 2))
    assert stored(tmp_path) == 0
    cache.put(key(2), bytes(cache._store.group_bytes // 2 + 1))
    assert stored(tmp_path) == 2


def test_a_group_is_bounded_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse_cache.cache.GROUP_SECONDS", 0.01)
    put, was_stored = Store.put, threading.Event()

    def observed(self: Store, values: Any) -> None:
        put(self, values)
        was_stored.set()

    monkeypatch.setattr(Store, "put", observed)
    cache = Cache(tmp_path, MEGABYTE)
    for number in range(3):  # a timer for each group, and not for the first alone
        was_stored.clear()
        cache.put(key(number), b"v")
        assert was_stored.wait(PATIENCE)
        cache.flush()  # waits for the timer's
        assert stored(tmp_path) == number + 1
    cache.close()


def test_where_no_thread_can_be_started_nothing_waits(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    cache.put(key(1), b"one")
    assert stored(tmp_path) == 1


def test_an_interrupt_while_storing_loses_nothing(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Store.put

    def interrupted(self: Store, values: Any) -> None:
        monkeypatch.setattr(Store, "put", put)
        raise KeyboardInterrupt

    cache.put(key(1), b"one")
    monkeypatch.setattr(Store, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.flush()
    cache.put(key(2), b"two")
    assert cache.get(key(1)) == b"one"
    cache.flush()
    assert stored(tmp_path) == 2


def test_a_group_that_is_interrupted_in_the_database_is_rolled_back(tmp_path: Path) -> None:
    store = Store(tmp_path / DATABASE, MEGABYTE)
    store.put({key(0): b"v"})
    with pytest.raises(sqlite3.Error):
        store.put({key(1): b"v", key(2): [1]})  # type: ignore[dict-item]
    assert stored(tmp_path) == 1
    store.put({key(3): b"v"})
    assert stored(tmp_path) == 2
    store.close()


def test_a_run_stores_everything_at_its_end(
    registry: Registry, folder: Path, tmp_path: Path, no_timer: None
) -> None:
    rows = [{"prompt": f"question {number}"} for number in range(20)]
    stillhouse.run(rows, llm=registry.create("echo"), output=tmp_path / "out.jsonl")
    assert stored(folder) == 20


RUN = """
import sys, stillhouse, stillhouse_cache.cache
from stillhouse import Registry
from stillhouse.registry.policy import Policy
from stillhouse_cache import CacheHooks

stillhouse_cache.cache.GROUP_SECONDS = 3600.0
first, last = int(sys.argv[1]), int(sys.argv[2])
hooks = CacheHooks()
registry = Registry(entry_points=[], policy=Policy())
registry.register_hooks("cache", hooks)
llm = registry.create("echo")
llm.load()
print("ready", flush=True)
sys.stdin.readline()
for _ in llm.iter_outputs(f"question {number}" for number in range(first, last)):
    pass
print("done", flush=True)
sys.stdin.readline()
"""


def start(folder: Path, first: int, last: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(first), str(last)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "STILLHOUSE_CACHE_DIR": str(folder)},
    )
    assert read(process) == "ready"
    return process


def read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_kill_loses_the_last_group_at_most(folder: Path) -> None:
    group = Store(folder / DATABASE, 2_000_000_000).group_entries
    process = start(folder, 0, 2 * group + 10)
    tell(process)
    assert read(process) == "done"
    process.kill()
    process.communicate()
    assert stored(folder) == 2 * group
    again = start(folder, 0, 2 * group + 10)
    tell(again)
    assert read(again) == "done"
    again.communicate("\n")
    assert stored(folder) == 2 * group + 10, "at the end of the process, the last group is stored too"


def test_two_processes_at_once_lose_nothing(folder: Path) -> None:
    processes = [start(folder, first, first + 1500) for first in (0, 1000)]  # a third is of both
    for process in processes:
        tell(process)
    for process in processes:
        assert read(process) == "done"
    for process in processes:
        process.communicate("\n")
        assert process.returncode == 0
    assert stored(folder) == 2500


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_what_waits_is_left_to_the_parent(cache: Cache, tmp_path: Path) -> None:
    cache.put(key(1), b"the parent's")
    with cache._lock:  # as a thread of the parent may hold it
        child = os.fork()
        if not child:
            status = 1
            try:
                assert cache.get(key(1)) is None
                cache.put(key(2), b"the child's")
                cache.close()
                status = 0
            finally:
                os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert stored(tmp_path) == 1
    cache.flush()
    assert (cache.get(key(1)), cache.get(key(2))) == (b"the parent's", b"the child's")


def test_hooks_store_what_waits_when_they_are_gone(
    folder: Path, registry: Registry, hooks: CacheHooks, no_timer: None
) -> None:
    with registry.create("echo") as llm:
        llm.generate_outputs(["hello"])
    assert stored(folder) == 0
    hooks.close()
    assert stored(folder) == 1
