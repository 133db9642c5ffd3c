"""What worker processes make of a run: rows a second, and CPU a row of the run's process and of its workers.

    python benchmarks/executors.py [--rows 20000] [--rounds 3] [--workers 1,2,4] [--million 1000000]

The runs are commands of their own, on an API backend whose server on this machine answers at once, and
on `echo`. They take turns. The server needs a core too: with fewer than four cores, read the CPU and not
the rows a second. It needs `stillhouse-openai`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import run
from typing import NamedTuple

from bulk_run import on_stub, write_rows
from measure import alternate, machine, median
from stub import served

PROGRAM = """
import json, resource, sys
from stillhouse.cli.app import app
try:
    app(sys.argv[2:], prog_name="stillhouse")
finally:
    def of(usage): return [usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    open(sys.argv[1], "w").write(json.dumps([*of(own), *of(others)]))
"""


class Spent(NamedTuple):
    """What a run took: seconds, CPU seconds, MiB of the largest process of a kind."""

    wall: float
    driver: float
    driver_memory: float
    workers: float
    worker_memory: float


def spent(folder: Path, rows: int, options: Sequence[str]) -> Spent:
    """Run a command, and return what it took."""
    output, told = folder / "out.jsonl", folder / "usage.json"
    arguments = [
        "generate",
        str(write_rows(folder, rows)),
        *options,
        "-o",
        str(output),
        "--restart",
        "--quiet",
    ]
    started = time.perf_counter()
    ended = run([sys.executable, "-c", PROGRAM, str(told), *arguments], capture_output=True, check=False)
    wall = time.perf_counter() - started
    if ended.returncode:
        sys.exit(ended.stderr.decode())
    with output.open() as stream:
        assert sum(1 for _ in stream) == rows
    return Spent(wall, *json.loads(told.read_text()))


def compare(title: str, folder: Path, rows: int, rounds: int, options: dict[str, list[str]]) -> None:
    """Print what runs with these options take, those of one row taken off."""
    readings: dict[str, list[Spent]] = {name: [] for name in options}
    first = {name: spent(folder, 1, given) for name, given in options.items()}

    def measure(name: str) -> float:
        readings[name].append(spent(folder, rows, options[name]))
        return readings[name][-1].wall

    alternate({name: lambda name=name: measure(name) for name in options}, rounds)  # type: ignore[misc]
    print(f"\n{title}, {rows:,} rows (medians of {rounds}; the start taken off)")
    print(f"  {'':16} rows/s   us a row: run, workers   together")
    for name, found in readings.items():
        counted, base = found[1:], first[name]
        wall = median([each.wall - base.wall for each in counted]) / rows
        driver = median([each.driver - base.driver for each in counted]) / rows * 1e6
        workers = median([each.workers - base.workers for each in counted]) / rows * 1e6
        print(f"  {name:16} {1 / wall:6,.0f} {driver:18.0f} {workers:8.0f} {driver + workers:10.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument(
        "--million", type=int, default=1_000_000, help="rows of the runs for memory; 0 for none"
    )
    arguments = parser.parse_args()
    print(machine())
    counts = [int(count) for count in arguments.workers.split(",")]
    executors = {"one process": list[str]()} | {
        f"{count} workers": ["--executor", "processes", "--workers", str(count)] for count in counts
    }
    with tempfile.TemporaryDirectory() as temporary, served() as url:
        folder = Path(temporary)
        for title, llm in (("An API backend", on_stub(url)), ("echo", ["--llm", "echo"])):
            options = {name: [*llm, *given] for name, given in executors.items()}
            compare(title, folder, arguments.rows, arguments.rounds, options)
        if arguments.million:
            print("\nresident memory of runs with echo (MiB: the run, a worker)")
            for name, given in executors.items():
                for rows in (10_000, arguments.million):
                    found = spent(folder, rows, ["--llm", "echo", *given])
                    print(
                        f"  {name:16} {rows:>9,} rows {found.driver_memory:6.1f} {found.worker_memory:6.1f}"
                    )


if __name__ == "__main__":
    main()
