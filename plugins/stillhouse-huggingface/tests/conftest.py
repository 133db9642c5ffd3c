"""A server that answers from a script, with its paths, and the real model behind OpenAI's API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loading import model_server

from stillhouse.testing import Reply, ScriptedServer
from stillhouse_huggingface import InferenceEndpointsLLM

VARIABLES = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HOME", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "XDG_CACHE_HOME",
    "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the machine decides a test, and no token that is saved on it."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))


class Site:
    """A server whose answers are given by path; a list of them is used up to its last.

    Attributes:
        pages: what it answers, JSON types or a `Reply`; every other path is a 404 with an empty body.
        server: the server.
    """

    def __init__(self) -> None:
        self.pages: dict[str, Any] = {}
        self.server = ScriptedServer(lambda path, body: None)
        begin = self.server._begin

        def answer(request: Any) -> Reply:
            scripted = begin(request)
            if scripted.body is not None or scripted.fault or scripted.status != 200:
                return scripted
            found = self.pages.get(request.path.partition("?")[0], Reply(404, b""))
            if isinstance(found, list):
                found = found.pop(0) if len(found) > 1 else found[0]
            return found if isinstance(found, Reply) else Reply(200, found)

        self.server._begin = answer  # type: ignore[method-assign]

    @property
    def origin(self) -> str:
        return self.server.origin

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.server.requests]

    def body(self, place: int = -1) -> Any:
        return self.server.requests[place].body

    def says(self, *replies: Reply) -> None:
        """Answer the next requests with these, whatever their path."""
        self.server.script += replies


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    site.pages["/v1/chat/completions"] = {
        "id": "", "object": "chat.completion", "created": 1730000000, "model": "org/name",
        "choices": [
            {"index": 0, "finish_reason": "stop", "logprobs": None,
             "message": {"role": "assistant", "content": "The Ucayali."}}
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15},
    }  # fmt: skip
    yield site
    site.server.close()


@pytest.fixture
def tgi(site: Site) -> Site:
    """The same as a TGI server."""
    site.pages["/info"] = {
        "model_id": "org/name", "model_sha": "abc", "version": "3.3.6", "max_concurrent_requests": 128,
        "max_best_of": 2, "max_stop_sequences": 4, "max_input_tokens": 4095, "max_total_tokens": 4096,
    }  # fmt: skip
    site.pages["/generate"] = Reply(
        200,
        {
            "generated_text": " the Ucayali.\n",
            "details": {
                "finish_reason": "stop_sequence", "generated_tokens": 4, "seed": 42, "prefill": [],
                "tokens": [
                    {"id": 278, "text": " the", "logprob": -0.5, "special": False},
                    {"id": 2, "text": "</s>", "logprob": -0.1, "special": True},
                ],
                "top_tokens": [
                    [{"id": 278, "text": " the", "logprob": -0.5, "special": False},
                     {"id": 263, "text": " a", "logprob": -1.5, "special": False}],
                    [],
                ],
            },
        },
        {"x-prompt-tokens": "7", "x-generated-tokens": "4", "x-compute-type": "gpu+optimized"},
    )  # fmt: skip
    return site


@pytest.fixture
def make(site: Site) -> Iterator[Callable[..., InferenceEndpointsLLM]]:
    """A loaded LLM that asks the server, with a key."""
    loaded: list[InferenceEndpointsLLM] = []

    def llm(**fields: Any) -> InferenceEndpointsLLM:
        given = {"base_url": site.origin, "api_key": "hf_explicit", "retry_timeout": 5, **fields}
        made = InferenceEndpointsLLM(**given)
        made.load()
        loaded.append(made)
        site.server.requests.clear()
        return made

    yield llm
    for made in loaded:
        made.unload()


@pytest.fixture(scope="session")
def real_server() -> Any:
    """SmolLM2 behind a real server that speaks OpenAI's API."""
    return model_server("sesame")


@pytest.fixture
def at_once(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries and polls come at once."""
    monkeypatch.setattr("stillhouse_huggingface.endpoints.POLL_SECONDS", 0.0)
