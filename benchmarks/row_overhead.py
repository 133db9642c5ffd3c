"""What a row costs with `echo` through the contract: CPU time of all threads of this process."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator

from measure import alternate, machine, median, print_rows

import stillhouse

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
        semaphore = asyncio.Semaphore(64)

        async def one(chat: list[stillhouse.ChatItem]) -> stillhouse.GenerateOutput:
            async with semaphore:
                return await llm.agenerate(chat, num_generations=1)

        await asyncio.gather(*(one(chat) for chat in chats(rows)))

    started = time.process_time()
    asyncio.run(main())
    return (time.process_time() - started) / rows


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
    print(f"against by hand: {median(readings['iter_outputs, window of 64']) / by_hand:.2f}")


if __name__ == "__main__":
    main()
