"""The model of capacity in docs/scale.md, recomputed: what a row costs, and what many rows then take.

    python benchmarks/capacity.py [--rows 20000] [--rounds 3] [--cores 2,8,32] [--total 1000000000]

It measures, with runs that are commands of their own: CPU a row in one process, in the process of a run
with workers, and in the workers, on an API backend whose server on this machine answers at once; the size
of the state for short and for long answers; and, on finished runs, the seconds that the same command takes
again and that `stillhouse join` takes. What follows from these is computed, not measured. With fewer than
four cores, CPU is what can be read, so the model rests on CPU alone. It needs `stillhouse-openai`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from bulk_run import on_stub
from bulk_run import spent as command
from executors import spent
from measure import machine, median
from stub import served

LENGTHS = (100, 2_000)
"""Characters of the prompts and of the answers of `echo`, which are the same."""


class Model(NamedTuple):
    """What was measured.

    Attributes:
        alone: CPU seconds a row in one process.
        driver: CPU seconds a row in the process of a run with workers.
        worker: CPU seconds a row in the workers.
        fixed: bytes of the state for a row without its texts.
        each: bytes of the state for each character of a prompt or an answer.
        again: seconds a row of a finished run that is started again.
        passed: seconds a row of the input that a shard reads and leaves to other shards.
        joined: seconds a row of joining shards.
    """

    alone: float
    driver: float
    worker: float
    fixed: float
    each: float
    again: float
    passed: float
    joined: float

    def rows_per_second(self, cores: int) -> float:
        """Return the rows per second of a run on so many cores, by the better of its two forms."""
        if cores < 2:
            return 1 / self.alone
        # Either the process of the run or the workers are busy all the time; one core is the run's.
        together = min(1 / self.driver, (cores - 1) / self.worker, cores / (self.driver + self.worker))
        return max(1 / self.alone, together)

    def state_bytes(self, chars: float) -> float:
        """Return the bytes of the state for a row with so many characters of prompt and answer."""
        return self.fixed + self.each * chars


def cpu_of_rows(folder: Path, rows: int, rounds: int) -> tuple[float, float, float]:
    """Measure the CPU seconds a row: alone, of the run's process, of its workers."""
    with served() as url:
        alone = on_stub(url)
        options = {"alone": alone, "workers": [*alone, "--executor", "processes", "--workers", "2"]}
        found = [
            {name: (spent(folder, 1, given), spent(folder, rows, given)) for name, given in options.items()}
            for _ in range(rounds + 1)
        ][1:]

    def of_a_row(name: str, kind: str) -> float:
        """Take the median start off the median run: both are noisy, and the start is a good part."""
        start, whole = (median([getattr(each[name][of], kind) for each in found]) for of in (0, 1))
        return (whole - start) / rows

    return of_a_row("alone", "driver"), of_a_row("workers", "driver"), of_a_row("workers", "workers")


def write_prompts(folder: Path, rows: int, chars: int) -> Path:
    path = folder / f"{rows}-{chars}.jsonl"
    with path.open("w") as stream:
        for number in range(rows):
            # Texts that no file system compresses away, and no column stores once.
            prompt = f"{number:09} {'the capital of that country, in one word; ' * (chars // 40 + 1)}"
            stream.write(json.dumps({"id": number, "prompt": prompt[:chars]}) + "\n")
    return path


def stillhouse(*options: str | Path) -> float:
    """Run a command; return its seconds."""
    code = "from stillhouse.cli import main; main()"
    return command([sys.executable, "-c", code, *map(str, options)]).wall


def files_of_rows(folder: Path, rows: int, rounds: int) -> tuple[float, float, float, float, float]:
    """Measure bytes of the state (fixed, a character) and seconds a row (again, passed, joined)."""
    sizes = []
    for chars in LENGTHS:
        output = folder / f"{chars}.out.jsonl"
        run = ("generate", write_prompts(folder, rows, chars), "--llm", "echo", "-o", output, "--quiet")
        stillhouse(*run)
        sizes.append(sum(path.stat().st_size for path in folder.glob(f"{output.name}.run.db*")
                         if not path.name.endswith("-reserve")) / rows)  # fmt: skip
    each = (sizes[1] - sizes[0]) / (2 * (LENGTHS[1] - LENGTHS[0]))
    fixed = sizes[0] - each * 2 * LENGTHS[0]
    short = write_prompts(folder, rows, LENGTHS[0])
    few = write_prompts(folder, 2, LENGTHS[0])

    def run_of(source: Path, name: str, *options: str) -> tuple[str | Path, ...]:
        return ("generate", source, "--llm", "echo", "-o", folder / name, "--quiet", *options)

    for source, name in ((few, "few"), (short, "many")):
        stillhouse(*run_of(source, f"{name}.jsonl"))
        for shard in "12":
            stillhouse(*run_of(source, f"{name}-{shard}.jsonl", "--shard", f"{shard}/2"))

    def join(name: str) -> float:
        target = folder / f"{name}-all.jsonl"
        target.unlink(missing_ok=True)
        return stillhouse("join", folder / f"{name}-1.jsonl", folder / f"{name}-2.jsonl", "-o", target)

    again, passed, joined = [], [], []
    for _ in range(rounds):
        first = stillhouse(*run_of(few, "first.jsonl", "--shard", "1/2", "--restart"))
        of_many = stillhouse(*run_of(short, "thousandth.jsonl", "--shard", "1/1000", "--restart"))
        passed.append(of_many - first)
        again.append(stillhouse(*run_of(short, "many.jsonl")) - stillhouse(*run_of(few, "few.jsonl")))
        joined.append(join("many") - join("few"))
    return fixed, each, median(again) / rows, median(passed) / rows, median(joined) / rows


def show(model: Model, rows: int, cores: list[int], total: int) -> None:
    """Print what was measured, and what follows."""
    print(f"\nMeasured, {rows:,} rows")
    print(f"  CPU a row, one process                     {model.alone * 1e6:8.0f} us")
    print(f"  CPU a row, the process of a run            {model.driver * 1e6:8.0f} us")
    print(f"  CPU a row, its workers                     {model.worker * 1e6:8.0f} us")
    print(f"  state, a row without its texts             {model.fixed:8.0f} bytes")
    print(f"  state, a character of prompt or answer     {model.each:8.2f} bytes")
    print(f"  a finished run again, a million rows       {model.again * 1e6:8.1f} s")
    print(f"  a shard reads, a million rows of others    {model.passed * 1e6:8.1f} s")
    print(f"  join, a million rows                       {model.joined * 1e6:8.1f} s")
    print("\nComputed: rows per second of one run, if the server answers faster")
    for count in (1, *cores):
        print(f"  {count:3} cores {model.rows_per_second(count):10,.0f}")
    print(f"  the most, at {1 + model.worker / model.driver:.0f} cores and more: {1 / model.driver:,.0f}")
    print("\nComputed: the state of a million rows")
    for chars in (200, 2_000, 10_000):
        print(f"  {chars:6,} characters a row {model.state_bytes(chars) * 1e6 / 1e9:8.1f} GB")
    print(f"\nComputed: {total:,} rows of 2,000 characters, on machines of {cores[-1]} cores")
    rate = model.rows_per_second(cores[-1])
    for shards in (1, 10, 100):
        part = total / shards
        print(
            f"  {shards:4} shards: {part / rate / 3600:8.1f} h of generating,"
            f" {part * model.state_bytes(2_000) / 1e9:9,.0f} GB of state each,"
            f" {(total - part) * model.passed / 3600:6.1f} h of reading the rows of others"
        )
    print(f"  join: {total * model.joined / 3600:.1f} h")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", default="2,8,32", help="for how many cores to compute")
    parser.add_argument("--total", type=int, default=1_000_000_000, help="rows of the large job")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows, rounds = arguments.rows, arguments.rounds
        model = Model(*cpu_of_rows(folder, rows, rounds), *files_of_rows(folder, 5 * rows, rounds))
    show(model, rows, [int(count) for count in arguments.cores.split(",")], arguments.total)


if __name__ == "__main__":
    main()
