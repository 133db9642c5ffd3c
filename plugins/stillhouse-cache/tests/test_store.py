"""The database: bounded, shared by processes, and without consequence when it fails."""

import logging
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import stillhouse_cache.store
from stillhouse import LLM, ConfigurationError, Registry
from stillhouse_cache import CacheHooks
from stillhouse_cache.cache import DATABASE, Cache
from stillhouse_cache.configuration import DEFAULT_SIZE, cache_directory, cache_size
from stillhouse_cache.store import Store

MEGABYTE = 1_000_000


def key(number: int) -> bytes:
    return number.to_bytes(32)


def size_of(folder: Path) -> int:
    return sum(item.stat().st_size for item in folder.iterdir())


def answers(registry: Registry, text: str) -> list[str | None]:
    with registry.create("echo") as llm:
        return llm.generate_outputs([text])[0]["generations"]


def test_store_stays_below_its_size_limit_and_evicts_the_oldest_first(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.db", MEGABYTE)
    largest = 0
    for number in range(3000):
        store.put({key(number): os.urandom(100 + number % 3000)})
        largest = max(largest, size_of(tmp_path))
    assert 0.5 * MEGABYTE < largest <= MEGABYTE
    kept = [number for number in range(3000) if store.get(key(number)) is not None]
    store.close()
    assert len(kept) > 100
    assert kept == list(range(kept[0], 3000))


def test_recently_used_entries_are_not_evicted(tmp_path: Path) -> None:
    day = [0.0]
    store = Store(tmp_path / "x.db", MEGABYTE, clock=lambda: day[0] * 86_400)
    for number in range(3000):
        day[0] = number / 100
        store.put({key(number): bytes(1000)})
        assert store.get(key(0)) is not None
    assert store.get(key(1)) is None
    store.close()


def test_a_value_too_large_for_the_limit_pushes_nothing_out(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.db", MEGABYTE)
    store.put({key(1): b"small"})
    store.put({key(2): bytes(MEGABYTE)})
    assert (store.get(key(1)), store.get(key(2))) == (b"small", None)
    store.close()


def test_a_lower_limit_shrinks_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.db", 8 * MEGABYTE)
    for number in range(5000):
        store.put({key(number): bytes(1000)})
    store.close()
    assert size_of(tmp_path) > 4 * MEGABYTE
    store = Store(tmp_path / "x.db", MEGABYTE)
    assert store.get(key(4999)) == bytes(1000)
    store.close()
    assert size_of(tmp_path) <= MEGABYTE


WRITER = """
import sys
from pathlib import Path
from stillhouse_cache.store import Store
store = Store(Path(sys.argv[1]), int(sys.argv[2]))
sys.stdin.read(1)
for number in range(int(sys.argv[3]), int(sys.argv[3]) + 500):
    store.put({number.to_bytes(32): b"%d" % number * 100})
    assert store.get(number.to_bytes(32)) == b"%d" % number * 100
store.close()
"""


@pytest.mark.parametrize("limit", [100 * MEGABYTE, MEGABYTE], ids=["room for all", "making room"])
def test_processes_write_at_once(tmp_path: Path, limit: int) -> None:
    arguments = [sys.executable, "-W", "error", "-c", WRITER, str(tmp_path / "x.db"), str(limit)]
    writers = [
        subprocess.Popen([*arguments, str(start)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for start in range(0, 2000, 500)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"x")
        writer.stdin.flush()
    errors = [writer.communicate()[1] for writer in writers]
    assert errors == [b""] * 4
    with sqlite3.connect(tmp_path / "x.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        count = connection.execute("SELECT count(*) FROM entry").fetchone()[0]
        rows = connection.execute("SELECT key, value FROM entry").fetchall()
    connection.close()
    assert count == 2000 if limit > MEGABYTE else 100 < count < 2000
    assert all(value == b"%d" % int.from_bytes(name) * 100 for name, value in rows)
    assert size_of(tmp_path) <= limit


def test_threads_write_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.db", MEGABYTE * 100)
    threads = [
        threading.Thread(target=lambda start=start: [store.put({key(start + i): b"v"}) for i in range(100)])
        for start in range(0, 800, 100)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(store.get(key(number)) == b"v" for number in range(800))
    store.close()


def test_several_threads_open_the_database_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, again = [], threading.Event()

    def slow_open(*arguments: Any) -> sqlite3.Connection:
        if opened:
            again.set()
        opened.append(arguments)
        again.wait(0.2)
        return real_open(*arguments)

    real_open = stillhouse_cache.store._open
    monkeypatch.setattr("stillhouse_cache.store._open", slow_open)
    store = Store(tmp_path / "x.db", MEGABYTE)
    threads = [threading.Thread(target=store.get, args=(key(number),)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert len(opened) == 1


def test_two_processes_make_the_database_at_once() -> None:
    """SQLite then refuses one of them at once, without waiting."""
    busy = sqlite3.OperationalError("database is locked")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY

    class Connection:
        refusals = 3

        def execute(self, statement: str) -> None:
            self.refusals -= 1
            if self.refusals >= 0:
                raise busy

    connection: Any = Connection()
    stillhouse_cache.store._use_log(connection)
    assert connection.refusals == -1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_child_opens_its_own_connection(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom stillhouse_cache.store import Store\n"
        "store = Store(Path(sys.argv[1]), 10**6)\nstore.put({b'a' * 32: b'parent'})\n"
        "store._lock.acquire()\n"  # as a thread of the parent may hold it
        "child = os.fork()\n"
        "if not child:\n"
        "    assert store.get(b'a' * 32) == b'parent'\n"
        "    store.put({b'b' * 32: b'child'})\n    store.close()\n    os._exit(0)\n"
        "store._lock.release()\n"
        "assert os.waitpid(child, 0)[1] == 0\nprint(store.get(b'b' * 32))\nstore.close()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x.db")], capture_output=True, text=True, timeout=60
    )
    assert (result.stdout, result.stderr) == ("b'child'\n", "")


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [item.getMessage() for item in caplog.records if item.levelno >= logging.WARNING]


def test_a_file_that_is_no_database(
    registry: Registry, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    (folder / DATABASE).write_bytes(b"this is not a database " * 1000)
    for _ in range(2):
        assert answers(registry, "hello") == ["hello"]
    [warning] = warnings_of(caplog)
    assert f"delete {folder / DATABASE}" in warning
    assert (folder / DATABASE).read_bytes().startswith(b"this is not a database")


@pytest.mark.parametrize("table", ["notes (text)", "entry (id, text)", "entry (id, key, used, value, more)"])
def test_a_database_of_something_else_is_left_as_it_is(
    registry: Registry, folder: Path, caplog: pytest.LogCaptureFixture, table: str
) -> None:
    folder.mkdir()
    connection = sqlite3.connect(folder / DATABASE)
    connection.execute(f"CREATE TABLE {table}")
    connection.commit()
    connection.close()
    before = (folder / DATABASE).read_bytes()
    for _ in range(2):
        assert answers(registry, "hello") == ["hello"]
    [warning] = warnings_of(caplog)
    assert "database of another program" in warning
    assert "delete" not in warning
    assert (folder / DATABASE).read_bytes() == before


def test_a_damaged_database(
    registry: Registry, hooks: CacheHooks, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(300):
        assert answers(registry, f"{number} " * 50)
    hooks.close()
    content = bytearray((folder / DATABASE).read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    (folder / DATABASE).write_bytes(content)
    for number in range(2):
        assert answers(registry, f"{number} " * 50) == [f"{number} " * 50]
    [warning] = warnings_of(caplog)
    assert "delete" in warning


def test_a_truncated_database(
    registry: Registry, hooks: CacheHooks, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(300):
        assert answers(registry, f"{number} " * 50)
    hooks.close()
    os.truncate(folder / DATABASE, 5000)
    assert answers(registry, "hello") == ["hello"]
    [warning] = warnings_of(caplog)
    assert "delete" in warning


def test_a_damaged_value_is_generated_again(
    registry: Registry, hooks: CacheHooks, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert answers(registry, "hello") == ["hello"]
    hooks.close()
    for value in (b"\x80\x04K\x01.", b"[]", b'{"generations": []}', b'{"generations": ["x"'):
        with sqlite3.connect(folder / DATABASE) as connection:
            connection.execute("UPDATE entry SET value = ?", (value,))
        connection.close()
        assert answers(registry, "hello") == ["hello"]
        hooks.close()
    assert warnings_of(caplog) == []


def test_a_folder_that_cannot_be_made(
    registry: Registry, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_text("a file in its place")
    for _ in range(2):
        assert answers(registry, "hello") == ["hello"]
    [warning] = warnings_of(caplog)
    assert "set STILLHOUSE_CACHE_DIR to another folder" in warning


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(registry: Registry, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.mkdir(mode=0o500)
    for _ in range(2):
        assert answers(registry, "hello") == ["hello"]
    [warning] = warnings_of(caplog)
    assert "make the folder writable" in warning


def test_a_database_that_refuses_writing(
    registry: Registry, hooks: CacheHooks, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a read-only folder, but for root too: what is there is still found."""
    assert answers(registry, "known") == ["known"]
    hooks.flush()
    [opened] = hooks._caches.values()
    connection: Any = opened._store._connection
    connection.execute("PRAGMA query_only = ON")
    for _ in range(2):
        assert answers(registry, "new") == ["new"]
        hooks.flush()
    [warning] = warnings_of(caplog)
    assert "nothing more is stored" in warning
    assert opened.is_readable
    assert answers(registry, "known") == ["known"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits and signals of Linux")
def test_full_disk_does_not_stop_generation(tmp_path: Path) -> None:
    """The size that a process may give a file is like a full disk to SQLite: a write that fails."""
    script = (
        "import logging, resource, signal, sys\n"
        "from pathlib import Path\nfrom stillhouse_cache.cache import Cache\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "cache = Cache(Path(sys.argv[1]), 10**7)\n"
        "for number in range(1000):\n"
        "    cache.put(number.to_bytes(32), b'v' * 1000)\n"
        "cache.flush()\n"
        "print(cache.is_readable, cache.is_writable)\n"
        "kept = sum(cache.get(number.to_bytes(32)) == b'v' * 1000 for number in range(1000))\n"
        "print(5 < kept < 1000)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert result.stdout == "True False\nTrue\n", result.stderr
    assert result.stderr.count("nothing more is stored") == 1


def test_a_full_disk_is_not_taken_for_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite reports both alike; room is made for the one, and the entries are kept for the other."""
    store = Store(tmp_path / "x.db", MEGABYTE * 100)
    store.put({key(1): b"one"})
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL

    class Full:
        def __init__(self, inner: sqlite3.Connection) -> None:
            self.inner = inner

        in_transaction = property(lambda self: self.inner.in_transaction)

        def execute(self, statement: str, *arguments: Any) -> Any:
            return self.inner.execute(statement, *arguments)

        def executemany(self, statement: str, values: Any) -> None:
            raise error

        def close(self) -> None:
            self.inner.close()

    store._connection = Full(store._connection)  # type: ignore[assignment,arg-type]
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.put({key(2): b"two"})
    assert store.get(key(1)) == b"one"
    store.close()


def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr("stillhouse_cache.store._BUSY_SECONDS", 0.05)
    opened = Cache(tmp_path, MEGABYTE)
    opened.put(key(1), b"one")
    opened.flush()
    other = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    opened.put(key(2), b"two")
    opened.flush()
    opened.put(key(3), b"three")
    assert opened.get(key(1)) == b"one"
    other.execute("ROLLBACK")
    other.close()
    opened.close()
    [warning] = warnings_of(caplog)
    assert "end the process that holds the database" in warning


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_cache_folder_is_not_readable_by_other_users(registry: Registry, folder: Path) -> None:
    answers(registry, "hello")
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2_000_000_000),
        (" 1.5 gib ", 1_610_612_736),
        ("500 MB", 500_000_000),
        ("1000000", 1_000_000),
        ("", DEFAULT_SIZE),
    ],
)
def test_cache_size_is_parsed_with_its_unit(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE_SIZE", text)
    assert cache_size() == size


@pytest.mark.parametrize("text", ["much", "2 XB", "-1GB", "2", "0", "1e9"])
def test_invalid_cache_size_is_reported(
    registry: Registry,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str,
) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE_SIZE", text)
    with pytest.raises(ConfigurationError, match="STILLHOUSE_CACHE_SIZE="):
        cache_size()
    for _ in range(2):
        assert answers(registry, "hello") == ["hello"]
    [warning] = warnings_of(caplog)
    assert "STILLHOUSE_CACHE_SIZE=" in warning
    assert not folder.exists()


def test_default_cache_folder_is_in_the_users_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.delenv("STILLHOUSE_CACHE_DIR", raising=False)
    assert str(cache_directory()) == platformdirs.user_cache_dir("stillhouse", appauthor=False)


def test_cache_hook_does_not_keep_an_llm_alive(registry: Registry, hooks: CacheHooks) -> None:
    """An LLM is not kept alive by the calls that are remembered."""
    import gc
    import weakref

    llm: LLM = registry.create("echo")
    with llm:
        llm.generate_outputs(["hello"])
    reference = weakref.ref(llm)
    del llm
    gc.collect()
    assert reference() is None
    assert hooks._calls
