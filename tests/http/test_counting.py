"""Every request counts towards the user's quotas, however it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

import orjson
import pytest

from stillhouse import FormattedInput, GenerateOutput, prepare_output
from stillhouse.http import HTTPLLM, Request
from stillhouse.http.transport.limits import Limits

from .conftest import Reply, ScriptedServer

CHAT: Any = [{"role": "user", "content": "hello"}]


class WaysLLM(HTTPLLM):
    """It sends a request in each of the ways there are."""

    api_key_required: ClassVar[bool] = False
    way: str

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, max_new_tokens: int | None = None
    ) -> GenerateOutput:
        body = {"input": input}
        if self.way == "complete":
            return await self.complete(input, num_generations, {"max_new_tokens": max_new_tokens})
        if self.way == "post":
            answer = await self.post("generate", body, max_new_tokens=max_new_tokens, used_tokens=used)
        else:
            answer = await self.request("POST", "generate", orjson.dumps(body), max_new_tokens=max_new_tokens)
        return prepare_output([answer["text"]])

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        return Request("generate", {"input": input})

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        return prepare_output([answer["text"]], [0], [answer["tokens"]])


def used(answer: Any) -> Any:
    return answer["tokens"]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens that each request was estimated to use."""
    found: list[int] = []
    take = Limits.try_acquire

    def spy(self: Limits, tokens: int = 0) -> Any:
        found.append(tokens)
        return take(self, tokens)

    monkeypatch.setattr(Limits, "try_acquire", spy)
    return found


@pytest.mark.parametrize("way", ["complete", "post", "request"])
def test_request_takes_its_tokens_from_the_quota_however_it_is_sent(
    server: ScriptedServer, taken: list[int], way: str
) -> None:
    with WaysLLM(model="m", base_url=server.url, way=way, tokens_per_minute=1e6) as llm:
        llm.generate_outputs([CHAT] * 2, max_new_tokens=50)
    size = len(orjson.dumps({"input": CHAT})) // 4
    assert taken == [size + 50] * 2


@pytest.mark.parametrize("count", ["7", 7.0, None, -7, True, [7], 2**64, {"n": 7}])
@pytest.mark.parametrize("way", ["complete", "post"])
def test_odd_count_corrects_nothing_or_the_right_number(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, way: str, count: Any
) -> None:
    corrected: list[int] = []
    monkeypatch.setattr(Limits, "correct_tokens", lambda self, estimated, used: corrected.append(used))
    server.script = [Reply(body=orjson.dumps({"text": "fine", "tokens": 0}).replace(b"0", _json(count)))]
    with WaysLLM(model="m", base_url=server.url, way=way, tokens_per_minute=1e6) as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["fine"]
    assert corrected == ([7] if count in ("7", 7.0) and count is not True else [])


def _json(value: Any) -> bytes:
    return str(value).encode() if isinstance(value, int) and value > 2**63 else orjson.dumps(value)


def test_file_and_a_poll_take_no_tokens(server: ScriptedServer, taken: list[int]) -> None:
    with WaysLLM(model="m", base_url=server.url, way="post", tokens_per_minute=1e6) as llm:
        llm.run_on_loop(_poll(llm))
    assert taken == [0, 0]


async def _poll(llm: WaysLLM) -> None:
    await asyncio.gather(llm.request("GET", "jobs/1"), llm.request("POST", "jobs", b"{}", once=True))
