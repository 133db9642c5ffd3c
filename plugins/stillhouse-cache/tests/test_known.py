"""What is known of the keys saves a lookup that would find nothing, and loses no hit."""

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from stillhouse import Registry
from stillhouse_cache import CacheHooks
from stillhouse_cache.known import KnownKeys
from stillhouse_cache.store import Store

LIMIT = 100_000_000


class Counting:
    """A connection that counts the lookups of single keys."""

    def __init__(self, inner: sqlite3.Connection) -> None:
        self.inner = inner
        self.lookups = 0

    def execute(self, statement: str, *arguments: Any) -> Any:
        self.lookups += "WHERE key" in statement
        return self.inner.execute(statement, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def counting(store: Store) -> Counting:
    connection: Any = Counting(store._connection or store._opened())
    store._connection = connection
    return connection  # type: ignore[no-any-return]


def keys(count: int) -> list[bytes]:
    return [os.urandom(32) for _ in range(count)]


def test_every_key_that_was_added_is_known_and_few_others() -> None:
    known, added, others = KnownKeys(16 * 2000), keys(2000), keys(5000)
    for key in added:
        known.add(key)
    assert all(key in known for key in added)
    assert sum(key in known for key in others) < 250


def test_keys_that_are_not_there_are_looked_up_seldom(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.db", LIMIT)
    connection = counting(store)
    for key in keys(1000):
        assert store.get(key) is None
    assert connection.lookups < 20
    store.close()


def test_what_was_stored_is_found_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.db", LIMIT)
    for key in keys(300):
        assert store.get(key) is None
        store.put({key: b"v"})
        assert store.get(key) == b"v"
    store.close()
    store = Store(tmp_path / "x.db", LIMIT)
    assert store.get(key) == b"v"
    store.close()


def test_what_another_process_stores_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("stillhouse_cache.store.time.monotonic", lambda: now[0])
    mine, other = Store(tmp_path / "x.db", LIMIT), Store(tmp_path / "x.db", LIMIT)
    for key in keys(50):
        assert mine.get(key) is None
        other.put({key: b"v"})
        now[0] += 1.0
        assert mine.get(key) == b"v"
    mine.close()
    other.close()


def test_a_large_cache_is_not_read_for_a_few_rows(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.db", LIMIT)
    there = keys(3000)
    for start in range(0, 3000, 500):
        store.put(dict.fromkeys(there[start : start + 500], b"v"))
    for key in keys(20):
        assert store.get(key) is None
    assert store._known is None
    for key in keys(200):
        assert store.get(key) is None
    assert store._known is not None
    assert all(store.get(key) == b"v" for key in there)
    store.close()


def test_a_key_is_made_once_for_a_row_and_not_kept(
    registry: Registry, hooks: CacheHooks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import stillhouse
    from stillhouse_cache.keys import CallKey

    made: list[Any] = []
    of = CallKey.of

    def observed(self: CallKey, llm: Any, input: Any) -> bytes | None:
        made.append(input)
        return of(self, llm, input)

    monkeypatch.setattr(CallKey, "of", observed)
    rows = [{"prompt": f"question {number}"} for number in range(50)]
    llm = registry.create("echo", failure_rate=0.5)
    run = stillhouse.run(rows, llm=llm, output=tmp_path / "out.jsonl")
    assert len(made) == 50
    assert run.failures, "an error is no output, and its key is not kept either"
    assert not any(call.missed for call in hooks._calls.values())
