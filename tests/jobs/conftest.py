"""A server that counts, and runs as processes that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

PATIENCE = 60.0

# Imports everything once; each line of its input is a command, which a fork of it runs. So a run
# starts in milliseconds, and is a process like any other.
NURSERY = """
import hashlib, importlib, json, os, signal, sys
import stillhouse, stillhouse.registry, stillhouse.cli.app, stillhouse.jobs.runs.bulk, stillhouse.jobs.reporting.progress, stillhouse.http.transport.session
from stillhouse import prepare_output
from stillhouse.http import HTTPLLM

def text_of(content):
    # An image is represented by a digest.
    if isinstance(content, str):
        return content
    return " ".join(part["text"] if part["type"] == "text"
                    else hashlib.sha256(part["image_url"]["url"].encode()).hexdigest()[:8] for part in content)

class CountedLLM(HTTPLLM):
    api_key_required = False
    capabilities = HTTPLLM.capabilities | {"images"}

    async def agenerate(self, input, num_generations: int = 1, max_new_tokens: int | None = None,
                        seed: int | None = None):
        answer = await self.post("generate", {"prompt": text_of(input[-1]["content"]), "n": num_generations, "seed": seed})
        error = answer.get("error")
        if error:
            raise stillhouse.GenerationError(error, kind="server",
                outputs=[prepare_output(answer["texts"])] if answer["texts"] else [])
        return prepare_output(answer["texts"], input_tokens=[3], output_tokens=[2] * num_generations)

stillhouse.registry.default_registry().register("counted", CountedLLM)
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, path in ((1, order["out"]), (2, order["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        sys.stdin.close()
        for name, value in order["constants"].items():
            module, _, constant = name.rpartition(".")
            setattr(importlib.import_module(module), constant, value)
        try:
            stillhouse.cli.app.app(order["arguments"], prog_name="stillhouse")
        except SystemExit as exited:
            sys.stdout.flush(); sys.stderr.flush()
            os._exit(exited.code or 0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Server:
    """Answers `{"prompt": …, "n": …}` with as many texts, and knows what it was asked.

    Attributes:
        asked: the prompts, in the order in which they came.
        bodies: the whole requests.
        fails: says of a request how many texts it gets before it fails, or `None`.
        answer: makes a text of a prompt and a number.
        refuses: says of a request whether it is one too many: the seconds to wait, 0 for no word on that, or
            `None` for a request that is answered.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.fails: Callable[[dict[str, Any]], int | None] = lambda _: None
        self.answer: Callable[[str, int], str] = lambda prompt, number: f"{prompt}!{number}"
        self.refuses: Callable[[dict[str, Any]], int | None] = lambda _: None
        self.gate: asyncio.Event
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = 0
        self.call(self._open())

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    async def _open(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        await self._listen()

    async def _listen(self) -> None:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_post("/generate", self._answer)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        with self._changed:
            self.asked.append(body["prompt"])
            self.bodies.append(body)
            self._changed.notify_all()
        wait = self.refuses(body)
        if wait is not None:
            headers = {"Retry-After": str(wait)} if wait else {}
            return web.json_response({"error": "too many"}, status=429, headers=headers)
        await self.gate.wait()
        await asyncio.sleep(0.001 + hash(body["prompt"]) % 5 / 1000)  # they finish out of order
        given = self.fails(body)
        count = body["n"] if given is None else given
        texts = [self.answer(body["prompt"], (body["seed"] or 0) + number) for number in range(count)]
        return web.json_response({"texts": texts, "error": None if given is None else "broken"})

    def vanish(self) -> None:
        """Close every connection and listen no more."""
        self.call(self._runner.cleanup())

    def come_back(self) -> None:
        self.call(self._listen())

    def hold(self) -> None:
        """Answer nothing until `let_go`."""
        self._loop.call_soon_threadsafe(self.gate.clear)

    def let_go(self) -> None:
        self._loop.call_soon_threadsafe(self.gate.set)

    def wait_for(self, count: int, seconds: float = PATIENCE) -> bool:
        """Wait until so many requests have come in; whether they have."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.asked) >= count, seconds)

    def close(self) -> None:
        self.let_go()
        self.call(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


class Process:
    """A run in a process of its own."""

    def __init__(
        self, nursery: Nursery, arguments: list[str], folder: Path, constants: dict[str, Any]
    ) -> None:
        self._nursery = nursery
        self.err_path = folder / "stderr.txt"
        self._skip = self.err_path.stat().st_size if self.err_path.exists() else 0
        order = {
            "arguments": arguments, "constants": constants,
            "out": str(folder / "stdout.txt"), "err": str(self.err_path),
        }  # fmt: skip
        self.pid = nursery.start(json.dumps(order))

    def kill(self, number: int = getattr(signal, "SIGKILL", signal.SIGTERM)) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit status; that of a signal is negative."""
        return self._nursery.wait()

    @property
    def err(self) -> str:
        return self.err_path.read_bytes()[self._skip :].decode()


class Nursery:
    """Starts runs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._running: int | None = None
        assert self.read() == "ready"

    def start(self, order: str) -> int:
        """Start a run, and return its process; one that a failed test left is killed."""
        assert self._process.stdin is not None
        if self._running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._running, signal.SIGKILL)
            self.wait()
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        self._running = int(self.read())
        return self._running

    def wait(self) -> int:
        """Wait for the run, and return its exit status."""
        status = int(self.read())
        self._running = None
        return status

    def read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def start(nursery: Nursery, server: Server, tmp_path: Path) -> Callable[..., Process]:
    """Start `stillhouse generate` on the counting server; one at a time."""

    def call(
        *arguments: object,
        concurrency: int = 16,
        folder: Path | None = None,
        constants: dict[str, Any] | None = None,
    ) -> Process:
        options = ["--llm", "counted:m", "--set", f"base_url=http://127.0.0.1:{server.port}"]
        texts = [str(argument) for argument in arguments]
        return Process(
            nursery,
            ["generate", *texts, *options, "--max-concurrency", str(concurrency)],
            folder or tmp_path,
            constants or {},
        )

    return call


@pytest.fixture
def start_and_kill(start: Callable[..., Process], server: Server) -> Callable[..., None]:
    """Kill a run several times, each at a random moment, then let it end."""

    def call(*arguments: object, times: int, rows: int, status: int = 0) -> None:
        chance = random.Random(17)
        for _ in range(times):
            process = start(*arguments)
            server.wait_for(len(server.asked) + chance.randrange(2, rows // times), 10.0)
            with contextlib.suppress(ProcessLookupError):  # it has ended
                process.kill()
            assert process.wait() in (-signal.SIGKILL, status)
        process = start(*arguments)
        assert process.wait() == status, process.err

    return call


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[int], Path]:
    """A file of so many rows."""

    def write(count: int) -> Path:
        path = tmp_path / "rows.jsonl"
        lines = (json.dumps({"id": number, "prompt": f"row {number}"}) for number in range(count))
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
