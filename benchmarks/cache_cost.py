"""What `stillhouse-cache` costs a run that misses every row: a whole `stillhouse generate` on an API backend.

    python benchmarks/cache_cost.py [--rows 20000] [--rounds 5] [--earlier 0]

The runs are commands of their own, with the cache switched off and with an empty one, in turn; `--earlier`
puts so many outputs of another run into it first. Budget: at most 1.15 of the CPU without it. It needs
`stillhouse-openai` and `stillhouse-cache`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path

from bulk_run import Reading, generate, on_stub, spent
from measure import alternate, machine, median
from stub import served


def stored(folder: Path) -> int:
    """How many outputs are in the cache."""
    connection = sqlite3.connect(folder / "outputs-1.db")
    (count,) = connection.execute("SELECT count(*) FROM entry").fetchone()
    connection.close()
    return int(count)


def fill(folder: Path, count: int) -> None:
    """Put outputs of another run into the cache."""
    from stillhouse_cache.store import Store

    store = Store(folder / "outputs-1.db", 2_000_000_000)
    value = b'{"generations":["The capital is Lima."],"statistics":{"input_tokens":[12],"output_tokens":[6]}}'
    for start in range(0, count, 250):
        store.put({os.urandom(32): value for _ in range(start, min(start + 250, count))})
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--earlier", type=int, default=0, help="outputs that are in the cache before")
    arguments = parser.parse_args()
    rows = arguments.rows
    print(machine())
    with tempfile.TemporaryDirectory() as temporary, served() as url:
        folder = Path(temporary)
        filled = folder / "filled"
        if arguments.earlier:
            fill(filled, arguments.earlier)
        start = median(
            [spent([sys.executable, "-c", "import stillhouse.http.transport.session"]).cpu for _ in range(3)]
        )
        walls: dict[str, list[float]] = {"without": [], "with": []}

        def run(name: str) -> float:
            cache = folder / "cache"
            shutil.rmtree(cache, ignore_errors=True)
            if arguments.earlier:
                shutil.copytree(filled, cache)
            os.environ["STILLHOUSE_CACHE_DIR"] = str(cache)
            os.environ["STILLHOUSE_DISABLE_PLUGINS"] = "stillhouse-cache" if name == "without" else ""
            reading: Reading = generate(folder, rows, *on_stub(url))
            if name == "with":
                assert stored(cache) == rows + arguments.earlier, "not every row was missed and stored"
            walls[name].append(reading.wall)
            return reading.cpu - start

        readings = alternate({name: lambda name=name: run(name) for name in walls}, arguments.rounds)  # type: ignore[misc]
        print(f"\nCPU and time a row of {rows:,} rows on an API backend (medians of {arguments.rounds}; us)")
        for name in walls:
            cpu, wall = median(readings[name]) / rows, median(walls[name][1:]) / rows
            print(f"  {name:8} the cache  {cpu * 1e6:8.0f} {wall * 1e6:8.0f}")
        pairs = [own / base for own, base in zip(readings["with"], readings["without"], strict=True)]
        walled = [own / base for own, base in zip(walls["with"][1:], walls["without"][1:], strict=True)]
        print(f"with against without: {median(pairs):.3f} (budget 1.15); of the time, {median(walled):.3f}")


if __name__ == "__main__":
    main()
