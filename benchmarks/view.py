"""`stillhouse view` on a run of 1,000,000 rows: when its page is there, how fast it answers, and its memory.

The state is written here, as `stillhouse generate` writes one: a run of that size takes long. Budgets: the
first rows in under 2 s from the start of the command; each answer to a filter in under 1 s, also where no
row matches; at most 300 MiB of resident memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from measure import machine

from stillhouse.jobs.formats.rows import digest_of
from stillhouse.jobs.store.database import connect, store_path
from stillhouse.jobs.store.seals import row_seal, sealed

FILTERS: dict[str, dict[str, str]] = {
    "no filter": {},
    "kind of error": {"kind": "timeout"},
    "finish reason": {"finish": "length"},
    "text in the answer, near the end": {"text": "answer 999", "scope": "answer"},
    "text that no row has": {"text": "no row has this", "scope": "both"},
    "value of a column, of the last row": {"column": "id", "value": "1152921504607846975"},
}


def write_run(folder: Path, rows: int) -> Path:
    """Write an input and the state of its run, and return the output's path."""
    output, source = folder / "out.jsonl", folder / "in.jsonl"
    connection = connect(store_path(output))
    command = {"model_name": "echo", "num_generations": 1, "template": None, "system": None, "raw": False}
    facts: dict[str, Any] = {
        "command": command, "output": output.name, "session 1": {"input": [str(source)], "command": []},
    }  # fmt: skip
    for key, value in facts.items():
        connection.execute("INSERT INTO info VALUES (?, ?, ?)", sealed("info", key, json.dumps(value)))
    connection.execute("BEGIN")
    with source.open("wb") as stream:
        connection.executemany(f"INSERT INTO rows VALUES (?{', ?' * 16})", _records(rows, stream))
    connection.execute("COMMIT")
    connection.close()
    return output


def _records(rows: int, stream: Any) -> Iterator[tuple[Any, ...]]:
    for row in range(rows):
        columns = {"id": 2**60 + row, "prompt": f"What is the capital of country number {row}? " * 4}
        line = json.dumps(columns).encode()
        stream.write(line + b"\n")
        failed = row % 1000 == 999
        result = {
            "generations": None if failed else [f"This is answer {row}, in some more words. " * 6],
            "statistics": None if failed else {"input_tokens": [40], "output_tokens": [60]},
            "finish_reasons": None if failed else ["length" if row % 5000 == 7 else "stop"],
            "model_name": "echo",
            "error": {"kind": "timeout", "message": "no answer in time"} if failed else None,
        }
        record = (
            row, digest_of(line), 2 if failed else 1, "timeout" if failed else None, 1, json.dumps(result),
            1.7e9 + row / 100, 1.5, 40, 60, None, None, None, None, None, None,
        )  # fmt: skip
        yield *record, row_seal(record)


def ask(address: str, question: str, parameters: dict[str, str]) -> tuple[float, Any]:
    started = time.perf_counter()
    with urlopen(f"{address}{question}?{urlencode(parameters)}") as answer:
        content = answer.read()
    return time.perf_counter() - started, json.loads(content) if question.startswith("api") else content


def peak(process: int) -> float:
    """The most resident memory that a process had, in MiB; Linux only."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="keep the run here, and use the one that is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        output = folder / "out.jsonl"
        if not store_path(output).exists():
            write_run(folder, options.rows)
        print(machine())
        code = "from stillhouse.cli import main; main()"
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", code, "view", output, "--no-open"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            for question in ("", "page.js", "page.css", "api/run", "api/rows"):
                ask(address, question, {})
            print(f"first rows after {time.perf_counter() - started:.2f} s, {peak(process.pid):.0f} MiB")
            for name, parameters in FILTERS.items():
                _measure(address, name, parameters)
            print(f"after all of them {peak(process.pid):.0f} MiB")
        finally:
            process.terminate()
            process.wait()


def _measure(address: str, name: str, parameters: dict[str, str]) -> None:
    """Ask until a page is full or the search has ended, and print the longest answer."""
    started = time.perf_counter()
    longest, answers, searched, found = 0.0, 0, 0, 0
    after: int | None = -1
    while after is not None and found < 50:
        seconds, answer = ask(address, "api/rows", {**parameters, "after": str(after)})
        longest, answers = max(longest, seconds), answers + 1
        searched, found, after = searched + answer["searched"], found + len(answer["rows"]), answer["next"]
    total = time.perf_counter() - started
    print(
        f"{name}: {found} rows of {searched:,} in {answers} answers, the longest {longest:.2f} s, "
        f"all {total:.2f} s"
    )


if __name__ == "__main__":
    main()
