"""CPU per request of every API backend here, against a bare aiohttp and orjson loop doing the same requests.

A stub server in a process of its own answers each path at once, as its provider would. The bare loop writes
the body that the backend sends and reads the same answer, and does nothing with either.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import orjson
from measure import alternate, machine, median

import stillhouse

TEXT = "The capital is Lima."

OPENAI: dict[str, Any] = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18},
}  # fmt: skip
ANTHROPIC = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
    "stop_sequence": None, "content": [{"type": "text", "text": TEXT}],
    "usage": {"input_tokens": 12, "output_tokens": 6},
}  # fmt: skip
COHERE = {
    "id": "1", "finish_reason": "COMPLETE",
    "message": {"role": "assistant", "content": [{"type": "text", "text": TEXT}]},
    "usage": {
        "billed_units": {"input_tokens": 5.0, "output_tokens": 6.0},
        "tokens": {"input_tokens": 12.0, "output_tokens": 6.0},
    },
}  # fmt: skip
OLLAMA = {
    "model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": TEXT},
    "done": True, "done_reason": "stop", "total_duration": 1, "load_duration": 1, "prompt_eval_count": 12,
    "prompt_eval_duration": 1, "eval_count": 6, "eval_duration": 1,
}  # fmt: skip
GOOGLE = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": TEXT}]}, "finishReason": "STOP", "index": 0}
    ],
    "usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 6, "totalTokenCount": 18},
    "modelVersion": "m", "responseId": "1",
}  # fmt: skip
BEDROCK = {
    "output": {"message": {"role": "assistant", "content": [{"text": TEXT}]}}, "stopReason": "end_turn",
    "usage": {"inputTokens": 12, "outputTokens": 6, "totalTokens": 18}, "metrics": {"latencyMs": 1},
}  # fmt: skip

KEY = {"api_key": "key"}
SIGNED = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region": "us-east-1"}

BACKENDS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "openai": ("openai", KEY, OPENAI),
    "a row of the table": ("fireworks", KEY, OPENAI),
    "openrouter": ("openrouter", KEY, OPENAI),
    "deepseek": ("deepseek", KEY, OPENAI),
    "mistral": ("mistral", KEY, OPENAI),
    "inference-endpoints": ("inference-endpoints", {**KEY, "api": "openai"}, OPENAI),
    "anthropic": ("anthropic", KEY, ANTHROPIC),
    "cohere": ("cohere", KEY, COHERE),
    "ollama": ("ollama", {}, OLLAMA),
    "gemini": ("gemini", KEY, GOOGLE),
    "vertexai": ("vertexai", {"project": "p", "location": "us-central1", "access_token": "key"}, GOOGLE),
    "bedrock, with a token": ("bedrock", {**KEY, "region": "us-east-1"}, BEDROCK),
    "bedrock, signed": ("bedrock", SIGNED, BEDROCK),
}
"""Each backend with its name, its fields, and what its provider answers."""

SERVER = """
import asyncio, json, sys

BODIES = {key.encode(): json.dumps(body).encode() for key, body in json.loads(sys.argv[1]).items()}
HEAD = "HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n"
ANSWERS = {key: (HEAD % len(body)).encode() + body for key, body in BODIES.items()}


class Stub(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\\r\\n\\r\\n")) >= 0:
            head = self.buffer[:end]
            length = int(head.lower().partition(b"content-length:")[2].split(b"\\r\\n", 1)[0])
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length:]
            self.transport.write(ANSWERS[head.split(b" ", 2)[1].split(b"/")[1]])


async def main():
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
"""


def chats(count: int) -> Iterator[list[stillhouse.ChatItem]]:
    for number in range(count):
        yield [{"role": "user", "content": f"What is the capital of country {number}?"}]


def bare(url: str, body: Any, count: int, in_flight: int) -> float:
    """What somebody writes by hand who wants it fast: a worker for each request in flight."""

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=in_flight)
        headers = {"authorization": "Bearer key", "content-type": "application/json"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            left = iter(range(count))

            async def work() -> None:
                for _ in left:
                    async with session.post(url, data=orjson.dumps(body)) as response:
                        assert orjson.loads(await response.read())

            await asyncio.gather(*(work() for _ in range(in_flight)))

    started = time.process_time()
    asyncio.run(main())
    return (time.process_time() - started) / count


def ours(llm: Any, count: int) -> float:
    with llm:
        started = time.process_time()
        answered = sum(1 for _, output in llm.iter_outputs(chats(count)) if output["generations"][0] == TEXT)
        seconds = time.process_time() - started
    assert answered == count
    return seconds / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--only", nargs="*", default=list(BACKENDS))
    arguments = parser.parse_args()
    print(machine())
    bodies = {str(number): answer for number, (_, _, answer) in enumerate(BACKENDS.values())}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, json.dumps(bodies)], stdout=subprocess.PIPE, text=True
    )
    print(f"CPU per request, {arguments.in_flight} in flight (medians of {arguments.rounds}; us)")
    try:
        assert server.stdout is not None
        origin = f"http://127.0.0.1:{json.loads(server.stdout.readline())}"
        for number, (title, (name, fields, _)) in enumerate(BACKENDS.items()):
            if title not in arguments.only:
                continue
            url, in_flight = f"{origin}/{number}", arguments.in_flight
            llm = stillhouse.create(name, model="m", base_url=url, max_concurrency=in_flight, **fields)
            (chat,) = chats(1)
            with llm:
                body = llm.request_of(chat, 1, {}).body  # type: ignore[attr-defined]
            readings = alternate(
                {
                    "bare": lambda: bare(url, body, arguments.requests, in_flight),  # noqa: B023
                    "ours": lambda: ours(llm, arguments.requests),  # noqa: B023
                },
                arguments.rounds,
            )
            here, there = median(readings["ours"]), median(readings["bare"])
            print(
                f"  {title.ljust(22)} {here * 1e6:7.0f} against {there * 1e6:7.0f}: {here / there:.2f}",
                flush=True,
            )
    finally:
        server.kill()


if __name__ == "__main__":
    main()
