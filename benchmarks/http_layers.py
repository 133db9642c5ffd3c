"""What each layer of a request costs, from a bare aiohttp loop up to a whole stream of inputs.

Each step does what the one before does, and one thing more. CPU per request, of this process alone; the
server is another one. Run it before and after a layer is added. The steps alternate in one run, and the
lower quartile is shown beside the median, since other work on the machine only ever adds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import aiohttp
import orjson
from http_requests import bare, chats, ours
from measure import alternate, machine
from stub import served

import stillhouse


def loaded(url: str, in_flight: int) -> Any:
    """An LLM of the openai backend."""
    return stillhouse.create("openai:m", base_url=url, api_key="key", max_concurrency=in_flight)


def workers(
    call: Callable[[Any], Awaitable[Any]], count: int, in_flight: int
) -> Callable[[], Awaitable[float]]:
    """Make so many calls, a worker for each in flight, and return the CPU seconds per call."""

    async def main() -> float:
        source = chats(count)

        async def work() -> None:
            for chat in source:
                await call(chat)

        started = time.process_time()
        await asyncio.gather(*(work() for _ in range(in_flight)))
        return (time.process_time() - started) / count

    return main


def on_loop(
    url: str, count: int, in_flight: int, calling: Callable[[Any], Callable[[Any], Awaitable[Any]]]
) -> float:
    """Make the calls on the loop of an LLM."""
    with loaded(url, in_flight) as llm:
        return llm.run_on_loop(workers(calling(llm), count, in_flight)())  # type: ignore[no-any-return]


def without_timer(url: str, count: int, in_flight: int) -> float:
    """As bare, with the session as the transport opens it: no timer for each request."""

    async def main() -> float:
        headers = {
            "authorization": "Bearer key",
            "content-type": "application/json",
            "accept": "application/json",
        }
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        ) as session:

            async def call(chat: Any) -> None:
                body = orjson.dumps({"model": "m", "messages": chat})
                response = await session.request("POST", f"{url}/chat/completions", data=body)
                answer = orjson.loads(await response.read())
                assert answer["choices"][0]["message"]["content"]

            return await workers(call, count, in_flight)()

    return asyncio.run(main())


def attempting(llm: Any) -> Callable[[Any], Awaitable[Any]]:
    """One attempt: errors, time limit, size, quotas, the look at the answer."""
    transport = llm._transport
    client, url = transport._client, llm.url_of(llm._base, "chat/completions")

    async def call(chat: Any) -> None:
        await client.attempt(
            "POST", url, orjson.dumps({"model": "m", "messages": chat}), None, "json", 2**20, True
        )

    return call


def sending(llm: Any) -> Callable[[Any], Awaitable[Any]]:
    """And limits, retries."""
    transport, url = llm._transport, llm.url_of(llm._base, "chat/completions")

    async def call(chat: Any) -> None:
        await transport.send("POST", url, orjson.dumps({"model": "m", "messages": chat}))

    return call


def exchanging(llm: Any) -> Callable[[Any], Awaitable[Any]]:
    """And the address, the bound, `request_of`, `output_of`."""

    async def call(chat: Any) -> None:
        await llm.exchange(llm.request_of(chat, 1, {}))

    return call


def generating(llm: Any) -> Callable[[Any], Awaitable[Any]]:
    """And `agenerate` with `complete`."""
    return partial(llm.agenerate, num_generations=1)


STEPS: dict[str, Callable[[str, int, int], float]] = {
    "bare aiohttp and orjson": lambda url, count, n: bare(url, count, n),
    "the transport's session": without_timer,
    "one attempt": lambda url, count, n: on_loop(url, count, n, attempting),
    "limits, retries": lambda url, count, n: on_loop(url, count, n, sending),
    "request_of, output_of": lambda url, count, n: on_loop(url, count, n, exchanging),
    "agenerate": lambda url, count, n: on_loop(url, count, n, generating),
    "iter_outputs": lambda url, count, n: ours(url, count, n),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--in-flight", type=int, nargs="*", default=[64, 512])
    arguments = parser.parse_args()
    print(machine())
    with served() as origin:
        url = f"{origin}/v1"
        for in_flight in arguments.in_flight:
            readings = alternate(
                {name: partial(step, url, arguments.requests, in_flight) for name, step in STEPS.items()},
                arguments.rounds,
            )
            first = None
            print(f"\nCPU per request, {in_flight} in flight (lower quartile, median; us; against bare)")
            for name, values in readings.items():
                low = statistics.quantiles(values, n=4)[0] if len(values) > 1 else values[0]
                middle = statistics.median(values)
                first = first or (low, middle)
                print(
                    f"  {name.ljust(24)} {low * 1e6:8.1f} {middle * 1e6:8.1f}"
                    f" {low / first[0]:8.2f} {middle / first[1]:8.2f}"
                )


if __name__ == "__main__":
    main()
