"""What a row costs with `echo` through the contract, and in the store: CPU time of all threads.

Budget: at most 60 us a row for the store, which seals a row, writes it, reads it again and checks its seal.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from measure import alternate, machine, median, print_rows

import stillhouse
from stillhouse.jobs.formats.rows import Row
from stillhouse.jobs.store.store import SqliteStore

WINDOW = 64

PROMPT = "What is the capital of country number {}? Answer in one word."


def chats(rows: int) -> Iterator[list[stillhouse.ChatItem]]:
    for number in range(rows):
        yield [{"role": "user", "content": PROMPT.format(number)}]


def contract(rows: int, llm: stillhouse.AsyncLLM) -> float:
    started = time.process_time()
    for _ in llm.iter_outputs(chats(rows)):
        pass
    return (time.process_time() - started) / rows


def gather(rows: int, llm: stillhouse.AsyncLLM) -> float:
    """What is usually written by hand: a task for each row, all at once, behind a semaphore."""

    async def main() -> None:
        semaphore = asyncio.Semaphore(WINDOW)

        async def one(chat: list[stillhouse.ChatItem]) -> stillhouse.GenerateOutput:
            async with semaphore:
                return await llm.agenerate(chat, num_generations=1)

        await asyncio.gather(*(one(chat) for chat in chats(rows)))

    started = time.process_time()
    asyncio.run(main())
    return (time.process_time() - started) / rows


def store(rows: int) -> float:
    """What a run does with a result: it is stored, a window of them at a time, and read for the output."""
    outputs = [
        stillhouse.prepare_output([PROMPT.format(number)], [12], [12], finish_reasons=["stop"])
        for number in range(WINDOW)
    ]
    with tempfile.TemporaryDirectory() as folder:
        kept = SqliteStore(Path(folder) / "out.jsonl", "echo")
        kept.set("command", {})
        kept.start()
        started = time.process_time()
        for first in range(0, rows, WINDOW):
            for place, output in enumerate(outputs):
                kept.put(Row(first + place, first + place + 1, {}, None, first << 32), output, 0.0125)
            kept.commit()
        stored = sum(1 for _ in kept.finished_rows())
        spent = (time.process_time() - started) / stored
        kept.close("complete")
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print(machine())
    llm = stillhouse.create("echo")
    assert isinstance(llm, stillhouse.AsyncLLM)
    with llm:
        readings = alternate(
            {
                "iter_outputs, window of 64": lambda: contract(arguments.rows, llm),
                "gather and a semaphore, by hand": lambda: gather(arguments.rows, llm),
            },
            arguments.rounds,
        )
    print_rows("CPU per row", readings, "us", 1e6)
    by_hand = median(readings["gather and a semaphore, by hand"])
    in_store = alternate({"stored and read again": lambda: store(arguments.rows)}, arguments.rounds)
    print_rows("CPU per row in the store (budget 60 us)", in_store, "us", 1e6)
    print(f"against by hand: {median(readings['iter_outputs, window of 64']) / by_hand:.2f}")


if __name__ == "__main__":
    main()
