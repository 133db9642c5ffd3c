"""A whole `stillhouse generate` run: CPU per row on an API backend, what the store costs, and memory.

The runs are commands of their own, with everything that a user's run has: reading, the store, the
accounting, the output. The bare loop does the same requests and nothing else. Budgets: at most 1.9 of
the bare loop; at most 60 us a row for the store; resident memory of 1,000,000 rows at most 1.25 of
that of 10,000.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from measure import alternate, machine, median
from stub import served

PROMPT = "What is the capital of country number {}? Answer in one word."
IN_FLIGHT = 64


class Reading(NamedTuple):
    cpu: float
    wall: float
    mebibytes: float


def spent(command: Sequence[str | Path]) -> Reading:
    """CPU and wall seconds and resident memory of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} failed:\n{errors.decode()}")
    wall = time.perf_counter() - started
    return Reading(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024)


def write_rows(folder: Path, rows: int) -> Path:
    path = folder / f"{rows}.jsonl"
    if not path.exists():
        with path.open("w") as stream:
            for number in range(rows):
                stream.write(json.dumps({"id": number, "prompt": PROMPT.format(number)}) + "\n")
    return path


def generate(folder: Path, rows: int, *options: str, kept: bool = True) -> Reading:
    output = folder / "out.jsonl"
    code = "from stillhouse.cli import main; main()"
    target = ["-o", str(output), "--restart"] if kept else ["-o", "-"]
    reading = spent([sys.executable, "-c", code, "generate", write_rows(folder, rows), *options, *target])
    if kept:
        with output.open() as stream:
            assert sum(1 for _ in stream) == rows
    return reading


def on_stub(url: str) -> list[str]:
    fields = [f"base_url={url}/v1", "api_key=key"]
    options = [item for field in fields for item in ("--set", field)]
    return ["--llm", "openai:m", "--max-concurrency", str(IN_FLIGHT), *options]


def bare(url: str, rows: int) -> Reading:
    code = f"from http_clients import bare; assert bare({url!r}, {rows}, {IN_FLIGHT}) == {rows}"
    return spent(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); {code}"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--million", type=int, default=1_000_000, help="rows of the large runs")
    parser.add_argument("--requests", action="store_true", help="also a large run on the provider")
    arguments = parser.parse_args()
    print(machine())
    rows = arguments.rows
    with tempfile.TemporaryDirectory() as temporary, served() as url:
        folder = Path(temporary)
        # What a run of no rows costs is the start of the process; it is taken off.
        start = median(
            [spent([sys.executable, "-c", "import stillhouse.http.transport.session"]).cpu for _ in range(3)]
        )
        echo = ["--llm", "echo"]
        readings = alternate(
            {
                "bare": lambda: bare(url, rows).cpu,
                "openai": lambda: generate(folder, rows, *on_stub(url)).cpu - start,
                "echo": lambda: generate(folder, 5 * rows, *echo).cpu - start,
                "printed": lambda: generate(folder, 5 * rows, *echo, kept=False).cpu - start,
            },
            arguments.rounds,
        )
        per_bare, per_row = median(readings["bare"]) / rows, median(readings["openai"]) / rows
        print(f"\nCPU a row on an API backend, {IN_FLIGHT} in flight (medians; us)")
        print(f"  bare loop, requests alone  {per_bare * 1e6:8.0f}")
        print(f"  stillhouse generate        {per_row * 1e6:8.0f}")
        print(f"against bare: {per_row / per_bare:.2f} (budget 1.9)")
        kept, printed = (median(readings[name]) / (5 * rows) * 1e6 for name in ("echo", "printed"))
        print("\nCPU a row of echo (medians; us)")
        print(f"  kept in a store, then written  {kept:6.1f}")
        print(f"  printed as it comes            {printed:6.1f}")
        print(f"the store: {kept - printed:.1f} (budget 60)")
        runs = [("echo", echo)] + ([("openai on the stub", on_stub(url))] if arguments.requests else [])
        for name, options in runs:
            small = generate(folder, 10_000, *options)
            large = generate(folder, arguments.million, *options)
            print(f"\nresident memory of a run with {name} (MiB)")
            print(f"  {10_000:>9,} rows  {small.mebibytes:6.1f}")
            print(f"  {arguments.million:>9,} rows  {large.mebibytes:6.1f}"
                  f"  ({arguments.million / large.wall:,.0f} rows/s)")  # fmt: skip
            print(f"large against small: {large.mebibytes / small.mebibytes:.2f} (budget 1.25)")


if __name__ == "__main__":
    main()
