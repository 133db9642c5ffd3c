"""CPU per request of an API backend, against a bare aiohttp and orjson loop doing the same requests.

Both ask a stub server in a process of its own, which answers at once. Budget: at most 1.5 at 1, 64 and 512 in
flight. With one in flight, the caller's thread is woken for every second request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator

import aiohttp
import orjson
from measure import alternate, machine, median, print_rows

import stillhouse

SERVER = """
import asyncio, json

BODY = json.dumps({
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "The capital is Lima."},
                 "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18},
}).encode()
HEAD = "HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(BODY)
ANSWER = HEAD.encode() + BODY


class Stub(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\\r\\n\\r\\n")) >= 0:
            head = self.buffer[:end].lower()
            length = int(head.partition(b"content-length:")[2].split(b"\\r\\n", 1)[0])
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length:]
            self.transport.write(ANSWER)


async def main():
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
"""


def chats(count: int) -> Iterator[list[stillhouse.ChatItem]]:
    for number in range(count):
        yield [{"role": "user", "content": f"What is the capital of country {number}?"}]


def bare(url: str, count: int, in_flight: int) -> float:
    """What somebody writes by hand who wants it fast: a worker for each request in flight."""

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=in_flight)
        headers = {"authorization": "Bearer key", "content-type": "application/json"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            source = chats(count)

            async def work() -> None:
                for chat in source:
                    body = orjson.dumps({"model": "m", "messages": chat})
                    async with session.post(f"{url}/chat/completions", data=body) as response:
                        answer = orjson.loads(await response.read())
                    assert answer["choices"][0]["message"]["content"]

            await asyncio.gather(*(work() for _ in range(in_flight)))

    started = time.process_time()
    asyncio.run(main())
    return (time.process_time() - started) / count


def ours(url: str, count: int, in_flight: int) -> float:
    llm = stillhouse.create("openai:m", base_url=url, api_key="key", max_concurrency=in_flight)
    with llm:
        started = time.process_time()
        answered = sum(1 for _, output in llm.iter_outputs(chats(count)) if output["generations"][0])
        seconds = time.process_time() - started
    assert answered == count
    return seconds / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(machine())
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{json.loads(server.stdout.readline())}/v1"
        for in_flight in (1, 64, 512):
            count = arguments.requests // (3 if in_flight == 1 else 1)
            readings = alternate(
                {
                    "bare aiohttp and orjson": lambda: bare(url, count, in_flight),  # noqa: B023
                    "openai backend": lambda: ours(url, count, in_flight),  # noqa: B023
                },
                arguments.rounds,
            )
            print_rows(f"CPU per request, {in_flight} in flight", readings, "us", 1e6)
            ratio = median(readings["openai backend"]) / median(readings["bare aiohttp and orjson"])
            print(f"against bare: {ratio:.2f} (budget 1.5)")
    finally:
        server.kill()


if __name__ == "__main__":
    main()
