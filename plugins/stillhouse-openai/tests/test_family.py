"""What the other classes do in another way than OpenAI."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest

from stillhouse import LLM, ConfigurationError, GenerationError, Registry, UnsupportedError
from stillhouse_openai import AnyscaleLLM, AzureOpenAILLM, ClientvLLM, GroqLLM, OpenAILLM, TogetherLLM

CHAT = [{"role": "user", "content": "hello"}]
CLASSES = {
    "openai": OpenAILLM, "azure-openai": AzureOpenAILLM, "together": TogetherLLM, "anyscale": AnyscaleLLM,
    "groq": GroqLLM, "vllm-server": ClientvLLM,
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_every_backend_name_resolves_to_its_class_and_round_trips(name: str) -> None:
    registry = Registry()
    assert registry.get_llm(name) is CLASSES[name]  # validated when it is loaded
    llm = registry.create(name, model="m", api_key="secret-1", generation_kwargs={"seed": 1})
    assert "secret-1" not in repr(llm) + str(llm.dump())
    again = LLM.from_dict(llm.dump(), registry=registry)
    assert type(again) is CLASSES[name]
    assert pickle.loads(pickle.dumps(llm)) == llm
    for parameter in llm.get_runtime_parameters_info():
        for key in parameter.get("keys", ()):
            assert key.get("description"), f"{name}: {key['name']} is not described"


@pytest.mark.parametrize(
    ("cls", "variable", "path"),
    [
        (OpenAILLM, "OPENAI", "/chat/completions"),
        (TogetherLLM, "TOGETHER", "/v1/chat/completions"),
        (AnyscaleLLM, "ANYSCALE", "/v1/chat/completions"),
        (GroqLLM, "GROQ", "/openai/v1/chat/completions"),
    ],
)
def test_the_environment_is_read_as_the_sdk_reads_it(
    cls: type[Any], variable: str, path: str, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="needs an API key") as caught:
        cls(model="m").load()
    assert f"{variable}_API_KEY" in caught.value.hint
    monkeypatch.setenv(f"{variable}_API_KEY", "from-env")
    monkeypatch.setenv(f"{variable}_BASE_URL", server.origin)
    with cls(model="m") as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["fine"]
    assert server.paths == [path]
    assert server.headers[0]["authorization"] == "Bearer from-env"


def azure(server: Any, **fields: Any) -> AzureOpenAILLM:
    return AzureOpenAILLM(
        **{"model": "dep", "base_url": server.origin, "api_version": "2024-10-21", **fields}
    )


def test_azure_asks_the_deployment_with_its_key(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.origin + "/")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key")
    monkeypatch.setenv("OPENAI_API_VERSION", "2025-01-01")
    with AzureOpenAILLM(model="dep") as llm:
        llm.generate_outputs([CHAT])
    assert server.paths == ["/openai/deployments/dep/chat/completions?api-version=2025-01-01"]
    assert server.headers[0]["api-key"] == "azure-key"
    assert "authorization" not in server.headers[0]


def test_azure_accepts_a_base_url_with_a_deployment_or_version_path(server: Any) -> None:
    with azure(server, base_url=f"{server.origin}/openai/deployments/other", api_key="k") as llm:
        llm.generate_outputs([CHAT])
    with azure(server, base_url=f"{server.origin}/openai/v1/", api_key="k", api_version=None) as llm:
        llm.generate_outputs([CHAT])
    assert server.paths == [
        "/openai/deployments/other/chat/completions?api-version=2024-10-21",
        "/openai/v1/chat/completions",
    ]


def test_azure_says_what_is_missing(server: Any) -> None:
    with pytest.raises(ConfigurationError, match="needs an API key, or a token"):
        azure(server).load()
    with pytest.raises(ConfigurationError, match="where the API is"):
        azure(server, base_url=None, api_key="k").load()
    with pytest.raises(ConfigurationError, match="requires an API version"):
        azure(server, api_version=None, api_key="k").load()


def test_azure_asks_for_a_token_once_for_many_requests(server: Any) -> None:
    threads: list[str] = []

    def provider() -> str:
        threads.append(threading.current_thread().name)
        return f"token-{len(threads)}"

    llm = azure(server, azure_ad_token_provider=provider, api_key="unused")
    assert "provider" not in repr(llm)
    assert "azure_ad_token_provider" not in llm.dump()
    with llm:
        loop_thread = llm.run_on_loop(_thread_name())
        llm.generate_outputs([CHAT] * 20)
    assert len(threads) == 1
    assert threads[0] != loop_thread, "a provider may block, and would stop every request"
    assert {item["authorization"] for item in server.headers} == {"Bearer token-1"}
    assert all("api-key" not in item for item in server.headers)
    with llm:
        llm.generate_outputs([CHAT])
    assert server.headers[-1]["authorization"] == "Bearer token-2"


async def _thread_name() -> str:
    return threading.current_thread().name


def test_azure_takes_a_coroutine_and_a_fixed_token(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def provider() -> str:
        return "awaited"

    with azure(server, azure_ad_token_provider=provider) as llm:
        llm.generate_outputs([CHAT])
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "from-env")
    with azure(server) as llm:
        llm.generate_outputs([CHAT])
    with azure(server, azure_ad_token="given") as llm:
        llm.generate_outputs([CHAT])
    with azure(server, api_key="key") as llm:  # what is given wins over the environment
        llm.generate_outputs([CHAT])
    assert [item.get("authorization") for item in server.headers] == [
        "Bearer awaited", "Bearer from-env", "Bearer given", None
    ]  # fmt: skip


def test_failing_azure_token_provider_stops_the_run(server: Any) -> None:
    def provider() -> str:
        raise OSError("no identity here")

    with azure(server, azure_ad_token_provider=provider) as llm, pytest.raises(GenerationError) as caught:
        list(llm.iter_outputs([CHAT] * 1000, on_error="yield"))
    assert (caught.value.kind, caught.value.stops_run) == ("authentication", True)
    assert "no identity here" in caught.value.message
    assert server.bodies == []


def test_groq_makes_one_generation_per_request(server: Any) -> None:
    server.script = [server.chat(text) for text in "ab"]
    with GroqLLM(model="m", base_url=server.origin, api_key="k") as llm:
        output = llm.generate_outputs([CHAT], num_generations=2)[0]
    assert sorted(output["generations"]) == ["a", "b"]
    assert all("n" not in body for body in server.bodies)


@pytest.mark.parametrize(
    "arguments", [{"logprobs": True}, {"top_logprobs": 2}, {"logit_bias": {"1": 1.0}}], ids=list
)
def test_groq_has_no_parameter_that_its_api_rejects(server: Any, arguments: dict[str, Any]) -> None:
    with GroqLLM(model="m", base_url=server.origin, api_key="k") as llm:
        with pytest.raises(ConfigurationError, match="GroqLLM has no generation parameter"):
            llm.generate_outputs([CHAT], **arguments)
        llm.generate_outputs([CHAT], extra_body=arguments)
    assert [body | arguments == body for body in server.bodies] == [True]


def test_together_has_a_number_of_logprobs_and_further_parameters(server: Any) -> None:
    answer = server.chat("a")
    answer["choices"][0]["logprobs"] = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": None}
    server.script = [answer]
    with TogetherLLM(model="m", base_url=server.origin, api_key="k") as llm:
        output = llm.generate_outputs(
            [CHAT], logprobs=True, top_k=5, max_new_tokens=3, extra_body={"min_p": 0.1}
        )[0]
    assert server.bodies[0] == {
        "model": "m", "messages": CHAT, "max_tokens": 3, "logprobs": 1, "top_k": 5, "min_p": 0.1
    }  # fmt: skip
    assert output["logprobs"] == [[[{"token": "a", "logprob": -0.5}]]]


def test_vllm_needs_an_address_and_no_key(server: Any) -> None:
    with pytest.raises(ConfigurationError, match="where the API is") as caught:
        ClientvLLM(model="m").load()
    assert caught.value.hint == "set base_url"
    with ClientvLLM(model="m", base_url=server.origin) as llm:
        llm.generate_outputs([CHAT], min_tokens=2, ignore_eos=True, repetition_penalty=1.1)
    assert "authorization" not in server.headers[0]
    assert server.paths == ["/v1/chat/completions"]
    assert server.bodies[0] == {
        "model": "m", "messages": CHAT, "min_tokens": 2, "ignore_eos": True, "repetition_penalty": 1.1
    }  # fmt: skip


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ({"format": "regex", "schema": "[ab]+"}, "abba", "abc"),
        ({"format": "choice", "schema": ["yes", "no"]}, "yes", "Yes"),
        (
            {"format": "json", "schema": {"type": "array", "minItems": 1}, "whitespace_pattern": " ?"},
            "[1]",
            "[]",
        ),
    ],
)
def test_vllm_answers_in_every_form(server: Any, form: dict[str, Any], good: str, bad: str) -> None:
    raw = {"choices": [{"index": 0, "text": good, "finish_reason": "stop"}]}
    server.script = [server.chat(good), raw, server.chat(bad)]
    with ClientvLLM(model="m", base_url=server.origin, structured_output=form) as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == [good]
        assert llm.generate_outputs(["raw"])[0]["generations"] == [good]
        with pytest.raises(GenerationError) as caught:
            llm.generate_outputs([CHAT])
    assert caught.value.kind == "schema"
    wanted = server.bodies[0]["structured_outputs"]
    assert wanted[form["format"]] == form["schema"]
    assert wanted.get("whitespace_pattern") == form.get("whitespace_pattern")
    assert server.bodies[1]["structured_outputs"] == wanted


def test_merged_generations_have_consecutive_seeds_in_order(server: Any) -> None:
    server.script = [server.chat(str(number)) for number in range(6)]
    with GroqLLM(model="m", base_url=f"{server.origin}/v1", api_key="k") as llm:
        (output,) = llm.generate_outputs([CHAT], num_generations=3, seed=7)
        seeds = [body["seed"] for body in server.bodies]
        assert sorted(seeds) == [7, 8, 9]
        by_seed = dict(zip(seeds, output["generations"], strict=True))
        (again,) = llm.generate_outputs([CHAT], num_generations=3)
    assert set(by_seed.values()) == {"0", "1", "2"}
    assert again["generations"]
    assert all("seed" not in body for body in server.bodies[3:])


def test_models_are_listed_with_what_the_provider_tells_of_them(server: Any) -> None:
    listed = [
        {"id": "a/b", "object": "model", "created": 1_700_000_000, "context_length": 4096,
         "pricing": {"input": 0.18, "output": 0.59, "base": 0, "hourly": 0}},
        {"id": "c", "object": "model", "pricing": None},
    ]  # fmt: skip
    server.script = [listed, {"object": "list", "data": listed}]
    first, second = TogetherLLM(model="m", base_url=server.origin, api_key="key").list_models()
    assert (first["input_price"], first["output_price"], first["context_length"]) == (0.18, 0.59, 4096)
    assert second == {"name": "c"}
    names = [
        model["name"] for model in OpenAILLM(model="m", base_url=server.origin, api_key="key").list_models()
    ]
    assert names == ["a/b", "c"]
    assert server.paths == ["/v1/models", "/models"]
    with pytest.raises(UnsupportedError):
        azure(server, api_key="k").list_models()


@pytest.mark.parametrize("cls", [OpenAILLM, GroqLLM])
def test_efforts_are_the_shared_words_and_a_tier_can_be_chosen(cls: type[Any], server: Any) -> None:
    with cls(model="m", base_url=f"{server.origin}/v1", api_key="key") as llm:
        for effort in ("none", "minimal", "low", "medium", "high", "max"):
            llm.generate_outputs([CHAT], reasoning_effort=effort, service_tier="flex")
            assert server.bodies[-1] == {
                "model": "m", "messages": CHAT, "reasoning_effort": effort, "service_tier": "flex",
            }  # fmt: skip
        with pytest.raises(ConfigurationError, match="reasoning_effort"):
            llm.generate_outputs([CHAT], reasoning_effort="xhigh")
        llm.generate_outputs([CHAT], extra_body={"reasoning_effort": "xhigh", "prompt_cache_key": "k"})
        assert server.bodies[-1]["reasoning_effort"] == "xhigh"
        assert server.bodies[-1]["prompt_cache_key"] == "k"
        with pytest.raises((GenerationError, UnsupportedError)):
            llm.generate_outputs(["raw"], reasoning_effort="low")
