"""`MixtureOfAgentsLLM` keeps every rule of the conformance kit, whatever its members are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from stillhouse import LLM, FormattedInput
from stillhouse.testing import LLMConformance, Reply, ScriptedServer
from stillhouse_moa import MixtureOfAgentsLLM
from stillhouse_openai import ClientvLLM, OpenAILLM


def completion(body: Any) -> Any:
    """What OpenAI's API answers: the question again, and the form where one is asked for."""
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    form = body.get("structured_outputs") or {}
    text = {"regex": "123-ab", "choice": "yes"}.get(next(iter(form), ""), text)
    if "json" in form:
        schema = form["json"]
        values = {"river": "Ucayali", "country": "Peru", "lake": "Titicaca"}
        text = json.dumps({name: values[name] for name in schema["properties"]})
    return {
        "id": "1",
        "choices": [
            {"index": index, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for index in range(body.get("n") or 1)
        ],
        "usage": {
            "prompt_tokens": len(str(body["messages"]).split()),
            "completion_tokens": 5,
            "total_tokens": 5,
        },
    }


class TestMixture(LLMConformance):
    """Members of another backend, at a server on this machine."""

    answers_are_scripted = True
    _api: ClassVar[ScriptedServer | None] = None

    @pytest.fixture(autouse=True)
    def _without_proxy(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
        yield
        if self._api is not None:
            self._api.reset()

    @classmethod
    def _origin(cls) -> str:
        if cls._api is None:
            cls._api = ScriptedServer(lambda path, body: completion(body))
        return cls._api.origin

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        if cls._api is not None:
            cls._api.close()
            cls._api = None

    def make(self) -> LLM:
        members = [OpenAILLM(model=name, base_url=f"{self._origin()}/v1") for name in ("a", "b")]
        last = ClientvLLM(model="last", base_url=f"{self._origin()}/v1")
        return MixtureOfAgentsLLM(aggregator_llm=last, proposers_llms=members)

    def make_failing(self) -> tuple[LLM, FormattedInput]:
        llm = self.make()
        assert self._api is not None
        self._api.always = Reply(400, {"error": {"message": "the test refuses this"}})
        return llm, self.inputs(1)[0]
