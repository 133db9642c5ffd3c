"""What workers make of a run: rows a second, and CPU a row of the run's process, its workers and Ray.

    python benchmarks/executors.py [--rows 20000] [--rounds 3] [--workers 1,2,4] [--million 1000000] [--ray]

The runs are commands of their own, on an API backend whose server on this machine answers at once, and
on `echo`. They take turns. The server needs a core too: with fewer than four cores, read the CPU and not
the rows a second. It needs `stillhouse-openai`, and `stillhouse-ray` for `--ray`, which starts a cluster on
this machine for each run and reads what its processes spend from `/proc`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE, Popen
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


LOOK_SECONDS = 0.1
"""How often the processes of a cluster are looked at: what each spends after the last look is missed."""


class Spent(NamedTuple):
    """What a run took: seconds, CPU seconds, MiB of the largest process of a kind.

    `others` is the CPU of the processes of a cluster that are no workers.
    """

    wall: float
    driver: float
    driver_memory: float
    workers: float
    worker_memory: float
    others: float = 0.0


class Cluster(threading.Thread):
    """Looks at the processes that a command starts, until it has ended.

    Args:
        process: the one of the command.

    Attributes:
        workers: CPU seconds of Ray's actors.
        worker_memory: the largest resident memory of one of them, in MiB.
        others: CPU seconds of the other processes.
    """

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._cpu: dict[int, float] = {}
        self._actors: set[int] = set()
        self._over = threading.Event()
        self.worker_memory = 0.0

    @property
    def workers(self) -> float:
        return sum(seconds for process, seconds in self._cpu.items() if process in self._actors)

    @property
    def others(self) -> float:
        return sum(self._cpu.values()) - self.workers

    def run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._look()

    def end(self) -> None:
        self._over.set()
        self.join()

    def _look(self) -> None:
        parents: dict[int, int] = {}
        ticks: dict[int, float] = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            parents[int(path.name)] = int(fields[1])
            ticks[int(path.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        for process in parents:
            if self._is_below(process, parents):
                self._cpu[process] = ticks[process]
                self._look_at(process)

    def _is_below(self, process: int, parents: dict[int, int]) -> bool:
        while process in parents:
            process = parents[process]
            if process == self._process:
                return True
        return False

    def _look_at(self, process: int) -> None:
        folder = Path("/proc", str(process))
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::RayActor"):
                self._actors.add(process)
                status = dict(
                    line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
                )
                peak = float(status["VmHWM"].split()[0]) / 1024
                self.worker_memory = max(self.worker_memory, peak)
        except (OSError, KeyError):
            pass


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
    command = [sys.executable, "-c", PROGRAM, str(told), *arguments]
    started = time.perf_counter()
    with Popen(command, stdout=PIPE, stderr=PIPE) as process:
        cluster = Cluster(process.pid) if "ray" in options else None
        if cluster is not None:
            cluster.start()
        _, errors = process.communicate()
    wall = time.perf_counter() - started
    if process.returncode:
        sys.exit(errors.decode())
    with output.open() as stream:
        assert sum(1 for _ in stream) == rows
    found = Spent(wall, *json.loads(told.read_text()))
    if cluster is None:
        return found
    cluster.end()
    return found._replace(workers=cluster.workers, worker_memory=cluster.worker_memory, others=cluster.others)


def compare(title: str, folder: Path, rows: int, rounds: int, options: dict[str, list[str]]) -> None:
    """Print what runs with these options take, those of one row taken off."""
    starts: dict[str, list[Spent]] = {name: [] for name in options}
    readings: dict[str, list[Spent]] = {name: [] for name in options}

    def measure(name: str) -> float:
        starts[name].append(spent(folder, 1, options[name]))
        readings[name].append(spent(folder, rows, options[name]))
        return readings[name][-1].wall

    alternate({name: lambda name=name: measure(name) for name in options}, rounds)  # type: ignore[misc]
    print(f"\n{title}, {rows:,} rows (medians of {rounds}; the start taken off)")
    print(f"  {'':16} rows/s   us a row: run, workers     Ray   together")
    for name, found in readings.items():
        counted = [Spent(*map(median, zip(*each[1:], strict=True))) for each in (found, starts[name])]
        wall, driver, _, workers, _, others = (
            (whole - start) / rows for whole, start in zip(*counted, strict=True)
        )
        each = (driver, workers, others, driver + workers + others)
        figures = "{:18.0f} {:8.0f} {:7.0f} {:10.0f}".format(*(seconds * 1e6 for seconds in each))
        print(f"  {name:16} {1 / wall:6,.0f} {figures}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument(
        "--million", type=int, default=1_000_000, help="rows of the runs for memory; 0 for none"
    )
    parser.add_argument("--ray", action="store_true", help="also with workers on Ray")
    arguments = parser.parse_args()
    print(machine())
    counts = [int(count) for count in arguments.workers.split(",")]
    executors = {"one process": list[str]()} | {
        f"{name}, {count}": ["--executor", name, "--workers", str(count)]
        for name in (["processes", "ray"] if arguments.ray else ["processes"])
        for count in counts
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
