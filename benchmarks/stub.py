"""A provider on this machine: it answers OpenAI's and Anthropic's chats, fast, late, or up to a limit."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

__all__ = ["served"]

SERVER = """
import asyncio, json, sys, time

delay, per_second = float(sys.argv[1]), float(sys.argv[2])

def answer(status, body, *headers):
    content = json.dumps(body).encode()
    length = f"content-length: {len(content)}"
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", length, *headers]
    return ("\\r\\n".join(lines) + "\\r\\n\\r\\n").encode() + content

TEXT = "The capital is Lima."
OPENAI = answer("200 OK", {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18},
})
ANTHROPIC = answer("200 OK", {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
    "stop_sequence": None, "content": [{"type": "text", "text": TEXT}],
    "usage": {"input_tokens": 12, "output_tokens": 6},
})
REFUSED = answer("429 Too Many Requests", {"error": {"message": "too many", "type": "rate_limit"}})

level, updated = 1.0, time.monotonic()
counts = {"answered": 0, "refused": 0}

def admitted():
    # A bucket that nobody tells the client of; a tenth of a second may come at once.
    global level, updated
    if not per_second:
        return True
    now = time.monotonic()
    level, updated = min(per_second / 10, level + (now - updated) * per_second), now
    if level < 1:
        return False
    level -= 1
    return True


class Stub(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\\r\\n\\r\\n")) >= 0:
            head = self.buffer[:end].lower()
            length = int((head.partition(b"content-length:")[2].split(b"\\r\\n", 1)[0]) or 0)
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length:]
            self.answer(head)

    def answer(self, head):
        path = head.split(b" ", 2)[1]
        if path == b"/counts":
            return self.transport.write(answer("200 OK", counts))
        if not admitted():
            counts["refused"] += 1
            return self.transport.write(REFUSED)
        counts["answered"] += 1
        body = ANTHROPIC if b"messages" in path else OPENAI
        if delay:
            loop.call_later(delay, self.transport.write, body)
        else:
            self.transport.write(body)


async def main():
    global loop
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Stub, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@contextlib.contextmanager
def served(delay: float = 0.0, per_second: float = 0.0) -> Iterator[str]:
    """The address of such a provider, in a process of its own.

    Args:
        delay: seconds before each answer.
        per_second: how many requests it admits; it refuses the others and says nothing of the limit.
            0 admits all.
    """
    command = [sys.executable, "-c", SERVER, str(delay), str(per_second)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()
