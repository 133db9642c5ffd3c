"""How fast each format is read, and in how much memory: against its library alone, and through a run.

    python benchmarks/formats.py [--rows 200000] [--rounds 5] [--memory 10000 1000000] [--run]

The library alone does what a person would write: `json.loads` for each line, `csv.reader` with a dict for
each row, `pyarrow` with `to_pylist`, `gzip` or `zstd` around `json.loads`, `json.load` for an array, which
loads it whole. All take turns in every round. The memory is what a process has at the end that reads the
fewest rows, and the most: it should not grow with them.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measure import alternate, command_seconds, machine, median

from stillhouse.jobs.sources.names import Names
from stillhouse.jobs.sources.opening import open_input

FORMATS = [
    "jsonl",
    "jsonl.gz",
    "jsonl.zst",
    "json",
    "csv",
    "tsv",
    "utf16.csv",
    "csv.gz",
    "parquet",
    "several",
]

MEASURE_MEMORY = """
import contextlib, sys
from stillhouse.jobs.sources.names import Names
from stillhouse.jobs.sources.opening import open_input
with contextlib.closing(open_input(Names(sys.argv[1:]))) as reader:
    reader.digest()
    count = sum(1 for _ in reader)
# Unlike that of getrusage, it is not the peak of the process that started this one.
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak) // 1024, count)
"""


def rows(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {
            "id": f"{number:08}",
            "prompt": f"Question {number}: " + "what is it, and why? é " * 8,
            "n": "12.5",
        }


def zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def make(folder: Path, name: str, count: int) -> Path:
    """Write a file of so many rows, or a folder of four."""
    path = folder / f"{count}.{name}"
    if name == "several":
        path.mkdir()
        for number in range(4):
            make(folder, "jsonl", count // 4).rename(path / f"{number}.jsonl")
    elif name == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = ["id", "prompt", "n"]
        with pq.ParquetWriter(path, pa.schema([(name, pa.string()) for name in names])) as writer:
            group: list[dict[str, Any]] = []
            for row in rows(count):
                group.append(row)
                if len(group) == 10_000:
                    writer.write_table(pa.Table.from_pylist(group))
                    group.clear()
            if group:
                writer.write_table(pa.Table.from_pylist(group))
    else:
        with opened(path, "w") as stream:
            if "json" in name:
                is_array = name == "json"
                for number, row in enumerate(rows(count)):
                    start = "" if not is_array else ",\n" if number else "["
                    stream.write(start + json.dumps(row, ensure_ascii=False) + ("" if is_array else "\n"))
                stream.write("]" if is_array else "")
            else:
                writer = csv.DictWriter(
                    stream, ["id", "prompt", "n"], delimiter="\t" if name == "tsv" else ","
                )
                writer.writeheader()
                writer.writerows(rows(count))
    return path


def opened(path: Path, mode: str) -> Any:
    encoding = "utf-16" if "utf16" in path.name else "utf-8"
    if path.suffix == ".gz":
        return gzip.open(path, f"{mode}t", encoding=encoding, newline="")
    if path.suffix == ".zst":
        return io.TextIOWrapper(zstd().open(path, f"{mode}b"), encoding, newline="")
    return path.open(mode, encoding=encoding, newline="")


def alone(path: Path) -> int:
    """Read with the format's library alone."""
    if path.is_dir():
        return sum(map(alone, sorted(path.iterdir())))
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return sum(len(batch.to_pylist()) for batch in pq.ParquetFile(path).iter_batches(4096))
    with opened(path, "r") as stream:
        if path.suffix == ".json":
            return len(json.load(stream))
        if ".jsonl" in path.name:
            return sum(1 for line in stream if json.loads(line))
        reader = csv.reader(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
        header = next(reader)
        return sum(1 for row in reader if dict(zip(header, row, strict=True)))


def ours(path: Path) -> int:
    with contextlib.closing(open_input(Names([str(path)]))) as reader:
        return sum(1 for _ in reader)


def seconds_of(read: Callable[[Path], int], path: Path, count: int) -> Callable[[], float]:
    def measure() -> float:
        started = time.perf_counter()
        assert read(path) == count
        return time.perf_counter() - started

    return measure


def run_seconds(path: Path, folder: Path) -> Callable[[], float]:
    command = [sys.executable, "-m", "stillhouse", "generate", str(path), "--llm", "echo", "--restart",
               "-o", str(folder / "out.jsonl")]  # fmt: skip
    return lambda: command_seconds(command)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, nargs=2, default=[10_000, 1_000_000])
    parser.add_argument("--run", action="store_true", help="also a whole run with echo, which is far slower")
    parser.add_argument("--formats", nargs="*", default=FORMATS)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        columns = ["library", "ours", *(["run"] if options.run else [])]
        titles = "".join(f"{title:>12}" for title in columns)
        print(f"\nrows/s of {options.rows:,} rows\n{'':12}{titles}{'ratio':>8}")
        for kind in options.formats:
            path = make(folder, kind, options.rows)
            subjects = {
                "alone": seconds_of(alone, path, options.rows),
                "ours": seconds_of(ours, path, options.rows),
            }
            if options.run:
                subjects["run"] = run_seconds(path, folder)
            found = {
                subject: median(values) for subject, values in alternate(subjects, options.rounds).items()
            }
            rates = {subject: options.rows / seconds for subject, seconds in found.items()}
            ratio = found["ours"] / found["alone"]
            shown = "".join(f"{rate:12,.0f}" for rate in rates.values())
            print(f"{kind:12}{shown}{ratio:8.2f}")
        few, many = options.memory
        print(f"\nMiB of a process that reads\n{'':12}{few:>12,}{many:>12,}{'ratio':>8}")
        for kind in options.formats:
            peaks = []
            for count in (few, many):
                path = make(folder, kind, count) if count != options.rows else folder / f"{count}.{kind}"
                result = subprocess.run(
                    [sys.executable, "-c", MEASURE_MEMORY, str(path)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                peak, read = map(int, result.stdout.split())
                assert read == count
                peaks.append(peak)
            print(f"{kind:12}{peaks[0]:12,}{peaks[1]:12,}{peaks[1] / peaks[0]:8.2f}")


if __name__ == "__main__":
    main()
