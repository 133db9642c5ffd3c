"""Requests per second and CPU per request of clients that people use, side by side in one run.

Each asks the same provider on this machine for the same chats: bare aiohttp with orjson, Stillhouse,
the SDKs of OpenAI and Anthropic, LiteLLM and distilabel, with 1, 64 and 512 requests in flight. Those
that are not installed are left out. Every reading is a process of its own, so that none of them
pays for what another has imported.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from measure import alternate, machine, median
from stub import served

CLIENTS = {
    "bare aiohttp and orjson": "aiohttp",
    "stillhouse openai": "stillhouse_openai",
    "stillhouse anthropic": "stillhouse_anthropic",
    "openai SDK": "openai",
    "anthropic SDK": "anthropic",
    "litellm": "litellm",
    "distilabel": "distilabel",
}


def chats(count: int) -> Iterator[list[dict[str, str]]]:
    for number in range(count):
        yield [{"role": "user", "content": f"What is the capital of country {number}?"}]


async def work(count: int, in_flight: int, ask: Callable[[Any], Awaitable[str | None]]) -> int:
    """So many workers ask for the chats, one after the other each: how many were answered."""
    source, answered = chats(count), 0

    async def worker() -> None:
        nonlocal answered
        for chat in source:
            text = await ask(chat)
            answered += bool(text)

    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return answered


def bare(url: str, count: int, in_flight: int) -> int:
    import aiohttp
    import orjson

    async def main() -> int:
        connector = aiohttp.TCPConnector(limit=in_flight)
        headers = {"authorization": "Bearer key", "content-type": "application/json"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

            async def ask(chat: Any) -> str:
                body = orjson.dumps({"model": "m", "messages": chat})
                async with session.post(f"{url}/v1/chat/completions", data=body) as response:
                    answer = orjson.loads(await response.read())
                return str(answer["choices"][0]["message"]["content"])

            return await work(count, in_flight, ask)

    return asyncio.run(main())


def stillhouse_backend(name: str, url: str, count: int, in_flight: int) -> int:
    import stillhouse

    base = f"{url}/v1" if name == "openai" else url
    with stillhouse.create(f"{name}:m", base_url=base, api_key="key", max_concurrency=in_flight) as llm:
        return sum(1 for _, output in llm.iter_outputs(chats(count)) if output["generations"][0])


def openai_sdk(url: str, count: int, in_flight: int) -> int:
    import openai

    async def main() -> int:
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="key")

        async def ask(chat: Any) -> str | None:
            answer = await client.chat.completions.create(model="m", messages=chat)
            return answer.choices[0].message.content

        return await work(count, in_flight, ask)

    return asyncio.run(main())


def anthropic_sdk(url: str, count: int, in_flight: int) -> int:
    import anthropic

    async def main() -> int:
        client = anthropic.AsyncAnthropic(base_url=url, api_key="key")

        async def ask(chat: Any) -> str:
            answer = await client.messages.create(model="m", max_tokens=100, messages=chat)
            return str(answer.content[0].text)

        return await work(count, in_flight, ask)

    return asyncio.run(main())


def litellm_client(url: str, count: int, in_flight: int) -> int:
    import litellm

    async def ask(chat: Any) -> str | None:
        answer = await litellm.acompletion("openai/m", messages=chat, api_base=f"{url}/v1", api_key="key")
        return str(answer.choices[0].message.content)

    return asyncio.run(work(count, in_flight, ask))


def distilabel_client(url: str, count: int, in_flight: int) -> int:
    from distilabel.models import OpenAILLM

    llm = OpenAILLM(model="m", base_url=f"{url}/v1", api_key="key")
    llm.load()
    source, answered = list(chats(count)), 0
    # It has no bound of its own: what is in one list is in flight at once.
    for start in range(0, count, in_flight):
        for output in llm.generate_outputs(inputs=source[start : start + in_flight], num_generations=1):
            answered += bool(output["generations"][0])
    return answered


RUN: dict[str, Callable[[str, int, int], int]] = {
    "bare aiohttp and orjson": bare,
    "stillhouse openai": lambda *call: stillhouse_backend("openai", *call),
    "stillhouse anthropic": lambda *call: stillhouse_backend("anthropic", *call),
    "openai SDK": openai_sdk,
    "anthropic SDK": anthropic_sdk,
    "litellm": litellm_client,
    "distilabel": distilabel_client,
}


def child(name: str, url: str, count: int, in_flight: int) -> None:
    """Print CPU seconds and wall seconds a request; imports and the first requests are not counted."""
    RUN[name](url, min(count, 2 * in_flight + 10), in_flight)
    cpu, wall = time.process_time(), time.perf_counter()
    answered = RUN[name](url, count, in_flight)
    reading = [(time.process_time() - cpu) / count, (time.perf_counter() - wall) / count]
    if answered != count:
        sys.exit(f"{name} got {answered} answers of {count}")
    print(json.dumps(reading))


def measure(name: str, url: str, count: int, in_flight: int) -> tuple[float, float]:
    command = [sys.executable, __file__, "--child", name, url, str(count), str(in_flight)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{name} failed:\n{result.stderr[-2000:]}")
    cpu, wall = json.loads(result.stdout.splitlines()[-1])
    return cpu, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", nargs="*", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--in-flight", nargs="*", type=int, default=[1, 64, 512])
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, url, count, in_flight = arguments.child
        child(name, url, int(count), int(in_flight))
        return
    print(machine())
    names = [name for name in arguments.clients if importlib.util.find_spec(CLIENTS[name])]
    for name in names:
        package = CLIENTS[name].replace("_", "-")
        print(f"  {name}: {package} {importlib.metadata.version(package)}")
    with served() as url:
        for in_flight in arguments.in_flight:
            count = max(arguments.requests // (4 if in_flight == 1 else 1), 2 * in_flight)
            walls: dict[str, list[float]] = {name: [] for name in names}

            def reading(name: str) -> float:
                cpu, wall = measure(name, url, count, in_flight)  # noqa: B023
                walls[name].append(wall)  # noqa: B023
                return cpu

            readings = alternate(
                {name: lambda name=name: reading(name) for name in names},  # type: ignore[misc]
                arguments.rounds,
            )
            least = median(readings["bare aiohttp and orjson"])
            print(f"\n{in_flight} in flight (medians: requests/s, CPU us a request, times bare)")
            for name in names:
                cpu = median(readings[name])
                rate = 1 / median(walls[name][1:])
                print(f"  {name:<24} {rate:9,.0f} {cpu * 1e6:9,.0f} {cpu / least:7.2f}")


if __name__ == "__main__":
    main()
