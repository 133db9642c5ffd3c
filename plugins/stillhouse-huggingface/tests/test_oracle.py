"""Hugging Face's own client as the judge: its types take our bodies and read our answers, and its rules ours."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse_huggingface.addresses import api_of
from stillhouse_huggingface.failures import quotas_of
from stillhouse_huggingface.tgi import generate_body, generated

hub: Any = pytest.importorskip("huggingface_hub", reason="pip install huggingface-hub")


def test_bodies_of_generate_are_those_of_the_client() -> None:
    given = {
        "max_new_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "typical_p": 0.9, "stop": "x",
        "seed": 1, "repetition_penalty": 1.1, "frequency_penalty": 0.1, "watermark": True, "top_logprobs": 2,
    }  # fmt: skip
    body = generate_body("Once", given, {"type": "json", "value": {"type": "object"}})
    kind = hub.TextGenerationInputGenerateParameters
    assert set(body["parameters"]) <= set(kind.__dataclass_fields__)
    assert set(body) <= set(hub.TextGenerationInput.__dataclass_fields__)
    assert kind.parse_obj_as_instance(body["parameters"]).stop == ["x"]


def test_bodies_of_chats_are_those_of_the_client(make: Any, tgi: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    chat = [{"role": "user", "content": "Hi"}]
    make().generate_outputs([chat], max_new_tokens=5, stop=["x"], seed=1, top_logprobs=2, tools=[tool])
    assert set(tgi.body()) <= set(hub.ChatCompletionInput.__dataclass_fields__)


def test_answers_are_read_as_the_client_reads_them(tgi: Any) -> None:
    answer = tgi.pages["/generate"].body
    theirs = hub.TextGenerationOutput.parse_obj_as_instance(answer)
    ours = generated(answer, {"parameters": {}}, logprobs=True)
    assert ours["generations"] == [theirs.generated_text]
    assert ours["statistics"]["output_tokens"] == [theirs.details.generated_tokens]
    logprobs = ours["logprobs"][0]
    assert logprobs is not None
    assert logprobs[0][0]["logprob"] == theirs.details.tokens[0].logprob


@pytest.mark.parametrize(
    "address", ["https://h", "https://h/", "https://h/v1", "https://h/v1/", "https://h/v1/chat/completions"]
)
def test_addresses_are_those_of_the_client(address: str) -> None:
    from huggingface_hub.inference._providers.hf_inference import _build_chat_completion_url

    assert f"{api_of(address)}/chat/completions" == _build_chat_completion_url(address)


def test_quotas_are_those_of_the_client() -> None:
    headers = {"ratelimit": '"api";r=12;t=55', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}
    theirs = hub.utils.parse_ratelimit_headers(headers)
    assert quotas_of(headers) == {
        theirs.resource_type: (theirs.remaining, theirs.limit, theirs.reset_in_seconds)
    }
