"""A server that does what a test's script says, on a real socket."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from stillhouse import FormattedInput, GenerateOutput, prepare_output
from stillhouse.http import HTTPLLM

ANSWER = {"text": "fine", "tokens": 3}


@dataclass
class Reply:
    """What the server sends for one request."""

    status: int = 200
    body: bytes = json.dumps(ANSWER).encode()
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # send so many bytes of the body, then drop the connection
    stall: bool = False  # send nothing, until the test is over


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: Any


class ScriptedServer:
    """Answers requests by a script, a list used up from the front; then with `fine`."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl = ssl_context
        self.script: list[Reply] = []
        self.answer: Callable[[Request], Reply | None] | None = None
        self.requests: list[Request] = []
        self.open = 0
        self.most_open = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(30)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=self._ssl)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines[1:] if line)
                }
                raw = await reader.readexactly(int(headers.get("content-length", "0")))
                request = Request(lines[0].split()[1], headers, json.loads(raw) if raw else None)
                self.requests.append(request)
                self.open += 1
                self.most_open = max(self.most_open, self.open)
                reply = self.answer(request) if self.answer else None
                reply = reply or (self.script.pop(0) if self.script else Reply())
                await asyncio.sleep(0)  # others may come in
                if reply.stall:
                    await self._over.wait()
                self.open -= 1
                fields = {"content-type": "application/json", "content-length": str(len(reply.body))}
                fields |= reply.headers
                text = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
                writer.write(f"HTTP/1.1 {reply.status} X\r\n{text}\r\n".encode())
                writer.write(reply.body if reply.cut is None else reply.body[: reply.cut])
                await writer.drain()
                if reply.cut is not None:
                    return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()


class ScriptLLM(HTTPLLM):
    """The smallest backend that there can be."""

    api_key_variable: ClassVar[str | None] = "SCRIPT_API_KEY"
    base_url_variable: ClassVar[str | None] = "SCRIPT_BASE_URL"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        answer = await self.post("generate", {"input": input}, used_tokens=lambda found: found.get("tokens"))
        return prepare_output([answer["text"]] * num_generations)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    yield scripted
    scripted.close()


@pytest.fixture
def make(server: ScriptedServer) -> Callable[..., ScriptLLM]:
    """An LLM that asks the server; not loaded."""

    def llm(**fields: Any) -> ScriptLLM:
        return ScriptLLM(**{"model": "m", "base_url": server.url, "api_key": "key-1234", **fields})

    return llm


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once; how long they would wait is tested by itself."""
    monkeypatch.setattr("stillhouse.http.transport.session.backoff_seconds", lambda attempt: 0.0)
