"""A server that answers from a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from stillhouse_cohere import CohereLLM

VARIABLES = (
    "CO_API_KEY", "CO_API_URL", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine decides a test."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@dataclass
class Asked:
    path: str
    body: Any


@dataclass
class Script:
    """What the server sends: the replies in their order, the last one again and again."""

    url: str
    replies: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    requests: list[Asked] = field(default_factory=list)

    def reply(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.replies.append((status, headers or {}, data))


@pytest.fixture
def script() -> Iterator[Script]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"] or 0))
            is_json = raw[:1] == b"{"
            found.requests.append(Asked(self.path, json.loads(raw) if is_json else raw.decode()))
            replies = found.replies
            status, sent, data = replies.pop(0) if len(replies) > 1 else replies[0]
            self.send_response(status)
            for name, text in {"content-type": "application/json", **sent}.items():
                self.send_header(name, text)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Script(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def make(script: Script) -> Iterator[Callable[..., CohereLLM]]:
    """A loaded LLM that asks the scripted server."""
    loaded: list[CohereLLM] = []

    def llm(**fields: Any) -> CohereLLM:
        made = CohereLLM(**{"model": "m", "base_url": script.url, "api_key": "key-0001-test", **fields})
        made.load()
        loaded.append(made)
        return made

    yield llm
    for made in loaded:
        made.unload()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    monkeypatch.setattr("stillhouse.http.transport.session.backoff_seconds", lambda attempt: 0.0)


def answer(text: Any = "fine", finish: Any = "COMPLETE", **message: Any) -> dict[str, Any]:
    """An answer of the API."""
    content = [{"type": "text", "text": text}] if isinstance(text, str) else text
    return {
        "id": "c14c80c3",
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content, **message},
        "usage": {
            "billed_units": {"input_tokens": 5, "output_tokens": 3},
            "tokens": {"input_tokens": 15.0, "output_tokens": 4.0},
        },
    }
