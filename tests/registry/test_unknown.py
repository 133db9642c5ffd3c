"""What is said of a name that leads nowhere: what it is, what was meant, what to install or to set."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import UnknownLLMError
from stillhouse.registry import Registry
from stillhouse.registry.known import ALIASES, BUILT_IN, MODELS, PACKAGES, SERVERS
from stillhouse.registry.unknown import hint_for

NOTHING = {"echo"}
ALL = {"echo", *PACKAGES}


def test_tables_lead_to_names_that_exist() -> None:
    assert not SERVERS.keys() & (PACKAGES.keys() | BUILT_IN.keys())
    assert {server.backend for server in SERVERS.values()} <= PACKAGES.keys()
    assert set(ALIASES.values()) | set(MODELS.values()) <= PACKAGES.keys() | SERVERS.keys()
    assert not ALIASES.keys() & (PACKAGES.keys() | SERVERS.keys())
    for server in SERVERS.values():
        assert re.fullmatch(r"https?://[\w.-]+(:\d+)?(/[\w.-]+)*", server.base_url)


@pytest.mark.parametrize("name", SERVERS)
def test_server_whose_api_a_backend_speaks_names_the_backend_and_the_address(name: str) -> None:
    server = SERVERS[name]
    with pytest.raises(UnknownLLMError) as caught:
        Registry(entry_points=[]).get_llm(name)
    assert caught.value.message == f'there is no LLM "{name}"'
    assert caught.value.hint.startswith(
        "stillhouse install stillhouse-openai, which speaks its API, and use "
    )
    assert f"use {server.backend}:MODEL with base_url={server.base_url}" in caught.value.hint
    hint = hint_for(name, ALL)
    assert hint.startswith(f"{server.backend} speaks its API: use {server.backend}:MODEL with base_url=")
    assert "pip" not in hint


@pytest.mark.parametrize(
    ("name", "here", "absent"),
    [
        ("OpenAI", "did you mean 'openai'?", "did you mean 'openai'? it is not installed: stillhouse install stillhouse-openai"),
        ("azure_openai", "did you mean 'azure-openai'?", "stillhouse install stillhouse-openai"),
        ("AnthropicLLM", "did you mean 'anthropic'?", "stillhouse install stillhouse-anthropic"),
        ("ClientvLLM", "did you mean 'vllm-server'?", "stillhouse install stillhouse-openai"),
        ("llama.cpp", "did you mean 'llamacpp'?", "stillhouse install stillhouse-llamacpp"),
        ("OllamaLLM", "did you mean 'ollama'?", "stillhouse install stillhouse-ollama"),
        ("LM Studio", "did you mean 'lmstudio'?", "stillhouse install stillhouse-openai"),
        ("vLLM", "did you mean 'vllm'?", "stillhouse install stillhouse-vllm"),
        ("TGI", "openai-compatible:MODEL with base_url=http://localhost:8080/v1", "stillhouse install stillhouse-openai"),
        ("MistralLLM", "did you mean 'mistral'?", "stillhouse install stillhouse-mistral"),
        ("LiteLLM", "did you mean 'litellm'?", "stillhouse install stillhouse-litellm"),
        ("InferenceEndpointsLLM", "did you mean 'inference-endpoints'?", "stillhouse install stillhouse-huggingface"),
        ("MixtureOfAgentsLLM", "did you mean 'moa'?", "stillhouse install stillhouse-moa"),
        ("VertexAILLM", "did you mean 'vertexai'?", "stillhouse install stillhouse-google"),
        ("vertex_ai", "did you mean 'vertexai'?", "stillhouse install stillhouse-google"),
        ("google", "did you mean 'gemini'?", "stillhouse install stillhouse-google"),
        ("aws", "did you mean 'bedrock'?", "stillhouse install stillhouse-bedrock"),
        ("opnai", "did you mean 'openai'", "it is not installed: stillhouse install stillhouse-openai"),
        ("olama", "did you mean 'ollama'", "it is not installed: stillhouse install stillhouse-ollama"),
        ("gpt-5-mini", "it is a model: write openai:gpt-5-mini", "stillhouse install stillhouse-openai, and write openai:gpt-5-mini"),
        ("openai/gpt-5-mini", "it is a model: write openai:gpt-5-mini", "and write openai:gpt-5-mini"),
        ("claude-opus", "it is a model: write anthropic:claude-opus", "stillhouse install stillhouse-anthropic, and"),
        ("deepseek-chat", "it is a model: write deepseek:deepseek-chat", "stillhouse install stillhouse-openai, and"),
        ("command-r", "it is a model: write cohere:command-r", "stillhouse install stillhouse-cohere"),
        ("mixtral-8x7b", "it is a model: write mistral:mixtral-8x7b", "stillhouse install stillhouse-mistral"),
        ("anthropic.claude-v2:0", "it is a model: write bedrock:anthropic.claude-v2:0", "stillhouse install stillhouse-bedrock"),
        ("openrouter/some/model", "it is a model: write openrouter:some/model", "stillhouse install stillhouse-openai"),
        ("vertex_ai/gemini-2.5-pro", "it is a model: write vertexai:gemini-2.5-pro", "stillhouse install stillhouse-google"),
        ("huggingface/org/name", "it is a model: write inference-endpoints:org/name", "stillhouse install stillhouse-huggingface"),
        ("hosted_vllm/m", "it is a model: write vllm-server:m", "stillhouse install stillhouse-openai"),
    ],
)  # fmt: skip
def test_name_by_another_word(name: str, here: str, absent: str) -> None:
    assert here in hint_for(name, ALL)
    assert "stillhouse install" not in hint_for(name, ALL)
    assert absent in hint_for(name, NOTHING)


def test_near_name_that_is_installed_comes_before_one_that_is_not() -> None:
    assert hint_for("ecko", NOTHING) == "did you mean 'echo'?"
    assert hint_for("anthropics", {"echo", "anthropic-x"}) == (
        "did you mean 'anthropic'? it is not installed: stillhouse install stillhouse-anthropic; "
        "installed is 'anthropic-x'"
    )
    assert hint_for("groc", {"echo", "groc-1"}) == (
        "did you mean 'groc-1', or 'groq', not installed (stillhouse install stillhouse-openai)?"
    )


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(max_size=300), st.sets(st.sampled_from(sorted({*PACKAGES, "echo", "mine"}))))
def test_any_name_gets_one_line_that_installs_nothing_installed(name: str, installed: set[str]) -> None:
    hint = hint_for(name.replace("\n", " "), installed)
    assert hint
    assert len(hint.splitlines()) <= max(1, len(name.splitlines()))
    for package in re.findall(r"stillhouse install ([\w-]+)", hint):
        assert any(PACKAGES[known] == package and known not in installed for known in PACKAGES)


def test_a_long_name_is_compared_in_part() -> None:
    assert hint_for("x" * 10**7, NOTHING).startswith("installed are: echo")


def test_name_that_is_like_it_by_chance_does_not_stand_beside_a_near_miss() -> None:
    assert hint_for("strangr", ["stranger"]) == "did you mean 'stranger'?"
