"""What a copy of a run's state costs: its bytes, and the time of the snapshot and of the compression.

    python benchmarks/state_copy.py [ROWS]

The state has answers of about 230 characters, of words from the documentation. Nothing is uploaded.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from stillhouse import prepare_output
from stillhouse.jobs.copies.copying import snapshot
from stillhouse.jobs.copies.marks import Mark, pack
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.store.store import SqliteStore

ROWS = 300_000
COMMIT_ROWS = 500
MARK = Mark("0" * 32, "1" * 32, 1, 0.0, False, 0, 3, "out.jsonl", "host", 1, 60.0, None, 64)


def build(folder: Path, rows: int) -> Path:
    """Store so many rows, and return the state."""
    words = (Path(__file__).parents[1] / "docs" / "bulk-runs.md").read_text(encoding="utf-8").split()
    chance = random.Random(1)
    store = SqliteStore(folder / "out.jsonl", "gpt-5-mini")
    store.set("command", {})
    store.start()
    for index in range(rows):
        output = prepare_output([" ".join(chance.choices(words, k=35))], [40], [50])
        store.put(Row(index, index + 1, {}), output, 1.0)
        if index % COMMIT_ROWS == 0:
            store.commit()
    store.commit()
    store.close("stopped")
    return store.path


def main(rows: int = ROWS) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = build(folder, rows)
        copy, packed = folder / "copy.db", folder / "copy.gz"
        cpu, began = time.process_time(), time.monotonic()
        with contextlib.closing(sqlite3.connect(state, isolation_level=None)) as connection:
            snapshot(connection, copy)
        taken = time.monotonic()
        with copy.open("rb") as source, packed.open("wb") as target:
            pack(source, MARK, target)
        ended = time.monotonic()
        scale = 1e6 / rows
        print("for a million rows:")
        print(f"  state        {state.stat().st_size * scale / 1e6:6.0f} MB")
        print(f"  copy         {packed.stat().st_size * scale / 1e6:6.0f} MB")
        print(f"  snapshot     {(taken - began) * scale:6.1f} s")
        print(f"  compression  {(ended - taken) * scale:6.1f} s")
        print(f"  CPU          {(time.process_time() - cpu) * scale:6.1f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
