"""A provider that does not report its limit, asked by one process, by a run's workers, and by separate runs.

    python benchmarks/executors_hidden_limit.py [--limits 100] [--workers 4] [--settle 20] [--seconds 60]

Workers lease the run's limits, and learn one pace. Separate runs, such as shards of one input, each learn a
pace of their own from their own refusals. Budget for workers, once they have settled: at least 95 % of the
limit, under 1 % refused. The runs are commands; their rows last longer than the time that is counted. It
needs `stillhouse-openai`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bulk_run import write_rows
from http_hidden_limit import counts
from measure import machine
from stub import served

CODE = "from stillhouse.cli import main; main()"
START_SECONDS = 60.0


def measured(
    url: str, commands: Sequence[Sequence[str]], settle: float, seconds: float
) -> tuple[float, float]:
    """Run commands at once; return answers per second and the share of requests that were refused."""
    running = [subprocess.Popen([sys.executable, "-c", CODE, *command]) for command in commands]
    try:
        ends = time.monotonic() + START_SECONDS
        while not counts(url)["answered"] and time.monotonic() < ends:
            time.sleep(0.1)
        time.sleep(settle)
        before, began = counts(url), time.monotonic()
        time.sleep(seconds)
        after, took = counts(url), time.monotonic() - began
        if any(process.poll() is not None for process in running):
            sys.exit("a run ended before the time did")
    finally:
        for process in running:
            process.kill()
            process.wait()
    answered, refused = (after[name] - before[name] for name in ("answered", "refused"))
    return answered / took, refused / max(1, answered + refused)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--limits", type=float, nargs="*", default=[100], help="per second")
    parser.add_argument("--workers", type=int, default=4, help="workers, and separate runs")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument("--settle", type=float, default=20, help="seconds that are not counted")
    parser.add_argument("--seconds", type=float, default=60, help="seconds that are counted")
    arguments = parser.parse_args()
    count = arguments.workers
    print(machine())
    print(f"answers take {arguments.latency:.1f} s; {arguments.settle:.0f} s to settle, then "
          f"{arguments.seconds:.0f} s counted")  # fmt: skip
    ways: dict[str, list[list[str]]] = {
        "one process": [[]],
        f"{count} workers of one run": [["--executor", "processes", "--workers", str(count)]],
        f"{count} separate runs": [["--shard", f"{number}/{count}"] for number in range(1, count + 1)],
    }
    for limit in arguments.limits:
        rows = int(limit * (arguments.settle + arguments.seconds) * 1.5 + 4000 * count)
        for name, options in ways.items():
            with tempfile.TemporaryDirectory() as temporary, served(arguments.latency, limit) as url:
                folder = Path(temporary)
                source = str(write_rows(folder, rows))
                fields = ["--set", f"base_url={url}/v1", "--set", "api_key=key"]
                begin = [
                    "generate",
                    source,
                    "--llm",
                    "openai:m",
                    "--max-concurrency",
                    "512",
                    "--quiet",
                    *fields,
                ]
                commands = [
                    [*begin, *more, "--quiet", "-o", str(folder / f"{number}.jsonl")]
                    for number, more in enumerate(options)
                ]
                rate, refused = measured(url, commands, arguments.settle, arguments.seconds)
            print(f"  {limit:6.0f}/s, {name:20}: {rate / limit:6.1%} of the limit, {refused:6.2%} refused")


if __name__ == "__main__":
    main()
