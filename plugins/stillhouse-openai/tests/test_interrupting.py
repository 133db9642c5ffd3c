"""Interrupts while a server sends what never ends, or a lot of junk: they are heard, and nothing is paid twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="this system has no such signals")

PATIENCE = 60.0
ROWS = 6

ANSWER = json.dumps(
    {"choices": [{"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}]}
).encode()


class Endless:
    """Answers the prompts with an even number; to the others it sends `junk`, until `is_cured`."""

    def __init__(self, status: int, kind: str, junk: bytes, times: int | None) -> None:
        self.asked: list[str] = []
        self.is_cured = False
        self.has_begun = threading.Event()
        endless = self
        begun: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                prompt = body["messages"][0]["content"]
                endless.asked.append(prompt)
                is_odd = int(prompt) % 2 and not endless.is_cured
                self.send_response(status if is_odd else 200)
                self.send_header("content-type", kind if is_odd else "application/json")
                self.end_headers()
                if not is_odd:
                    self.wfile.write(ANSWER)
                    return
                sent = 0
                with contextlib.suppress(OSError):
                    while times is None or sent < times:
                        self.wfile.write(junk)
                        sent += 1
                        begun.append(prompt)
                        if len(set(begun)) == ROWS // 2:
                            endless.has_begun.set()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def endless() -> Iterator[Callable[..., Endless]]:
    servers: list[Endless] = []

    def make(*arguments: Any) -> Endless:
        servers.append(Endless(*arguments))
        return servers[-1]

    yield make
    for one in servers:
        one.server.shutdown()
        one.server.server_close()


def wait_until_stored(state: Path, count: int) -> None:
    """Wait until the state of a run has so many rows."""
    ends = time.monotonic() + PATIENCE
    address = f"{state.as_uri()}?mode=ro"  # an empty file would be taken for a state that was cut off
    while time.monotonic() < ends:
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(address, uri=True)) as connection,
        ):
            if connection.execute("SELECT count(*) FROM rows").fetchone()[0] >= count:
                return
        time.sleep(0.02)
    raise AssertionError("nothing was stored")


@pytest.mark.parametrize(
    ("first", "status", "kind", "junk", "times"),
    [
        (signal.SIGINT, 200, "text/event-stream", b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', None),
        (signal.SIGINT, 200, "application/json", b"[" * 2**20, 60),
        (signal.SIGINT, 500, "text/html", b"<" * 300_000, 1),
        (signal.SIGTERM, 500, "text/html", b"<" * 300_000, 1),
    ],
)
def test_interrupt_is_heard_and_nothing_is_paid_twice(
    tmp_path: Path,
    endless: Callable[..., Endless],
    first: int,
    status: int,
    kind: str,
    junk: bytes,
    times: int | None,
) -> None:
    server = endless(status, kind, junk, times)
    rows = "".join(json.dumps({"prompt": str(number)}) + "\n" for number in range(ROWS))
    (tmp_path / "in.jsonl").write_text(rows)
    command = [
        sys.executable, "-c", "from stillhouse.cli import main; main()", "generate", "in.jsonl", "--llm", "openai:m",
        "--set", f"base_url=http://127.0.0.1:{server.server.server_address[1]}/v1",
        "--set", f"max_answer_bytes={2**40}", "-o", "out.jsonl",
    ]  # fmt: skip
    environment = {**os.environ, "OPENAI_API_KEY": "key", "STILLHOUSE_DISABLE_PLUGINS": "stillhouse-cache"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        try:
            assert server.has_begun.wait(PATIENCE)
            wait_until_stored(tmp_path / "out.jsonl.run.db", ROWS // 2)
            process.send_signal(first)
            said = ""
            for said in process.stderr:
                if "interrupt again" in said:
                    break
            assert "interrupt again" in said
            process.send_signal(signal.SIGINT)
            patience = threading.Timer(PATIENCE, process.kill)
            patience.start()
            err = process.stderr.read()  # communicate() would miss what is in the buffer of this stream
            process.wait()
            patience.cancel()
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert "run the same command again" in err
    server.is_cured = True
    answered = len(server.asked)
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=PATIENCE)
    assert again.returncode == 0, again.stderr
    assert not {"0", "2", "4"} & set(server.asked[answered:])
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["generations"] for row in written] == [["fine"]] * ROWS
