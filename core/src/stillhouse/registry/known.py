"""The names that this project provides or knows: those built in, those of its packages, and servers.

All but those built in are for the hint when a name is not installed. Nothing here is imported or preferred.
What could be installed, and from which package, is in `available.toml`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

__all__ = ["ALIASES", "BUILT_IN", "MODELS", "PACKAGES", "SERVERS", "SOURCES", "Server"]

BUILT_IN: dict[str, str] = {"echo": "stillhouse.echo:EchoLLM"}
"""The built-in LLMs: name to `module:attribute`."""

if TYPE_CHECKING:
    PACKAGES: dict[str, str]
    """The distribution that provides an LLM, by the LLM's name; read from `available.toml` when used."""
else:

    def __getattr__(name: str) -> Any:
        if name == "PACKAGES":
            from stillhouse.registry.available import packages

            return packages()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


SOURCES: dict[str, str] = {"datasets": "stillhouse-datasets"}
"""The distribution that opens a source or a target of bulk runs, by what stands before the colon."""


class Server(NamedTuple):
    """A server that has no backend of its own, because another one speaks its API.

    Attributes:
        base_url: the address to set.
        backend: the LLM that speaks its API.
    """

    base_url: str
    backend: str = "openai-compatible"


SERVERS: dict[str, Server] = {
    "litellm-proxy": Server("http://localhost:4000/v1"),
    "llama-server": Server("http://localhost:8080/v1"),
    "llamafile": Server("http://localhost:8080/v1"),
    "localai": Server("http://localhost:8080/v1"),
    "tgi": Server("http://localhost:8080/v1"),
}
"""Servers, by the name that people ask for."""

ALIASES: dict[str, str] = {
    "alibaba": "dashscope",
    "amazon": "bedrock",
    "amazon-bedrock": "bedrock",
    "aws": "bedrock",
    "aws-bedrock": "bedrock",
    "azure": "azure-openai",
    "chatgpt": "openai",
    "claude": "anthropic",
    "clientvllm": "vllm-server",
    "codestral": "mistral",
    "command": "cohere",
    "custom-openai": "openai-compatible",
    "deep-infra": "deepinfra",
    "deep-seek": "deepseek",
    "featherless-ai": "featherless",
    "fireworks-ai": "fireworks",
    "friendliai": "friendli",
    "github": "github-models",
    "glm": "zai",
    "google": "gemini",
    "google-ai": "gemini",
    "google-ai-studio": "gemini",
    "google-genai": "gemini",
    "google-vertex": "vertexai",
    "grok": "xai",
    "hf": "inference-endpoints",
    "hosted-vllm": "vllm-server",
    "hugging-face": "inference-endpoints",
    "huggingface": "inference-endpoints",
    "inference-providers": "inference-endpoints",
    "inferenceendpoints": "inference-endpoints",
    "kimi": "moonshot",
    "lite": "litellm",
    "llama-cpp": "llamacpp",
    "lm-studio": "lmstudio",
    "local-ai": "localai",
    "mini-max": "minimax",
    "mistral-ai": "mistral",
    "mistralai": "mistral",
    "mixture-of-agents": "moa",
    "mixtureofagents": "moa",
    "moonshotai": "moonshot",
    "nebius-ai": "nebius",
    "nim": "nvidia-nim",
    "novita-ai": "novita",
    "nvidia": "nvidia-nim",
    "open-router": "openrouter",
    "openai-like": "openai-compatible",
    "openailike": "openai-compatible",
    "perplexity-ai": "perplexity",
    "pplx": "perplexity",
    "qwen": "dashscope",
    "samba-nova": "sambanova",
    "sonar": "perplexity",
    "text-generation-inference": "tgi",
    "together-ai": "together",
    "togetherai": "together",
    "vertex": "vertexai",
    "vertex-ai": "vertexai",
    "x-ai": "xai",
    "z-ai": "zai",
    "zhipu": "zai",
    "zhipuai": "zai",
}
"""Other words for the same, in small letters with hyphens, without distilabel's LLM at the end."""

MODELS: dict[str, str] = {
    "amazon-nova": "bedrock",
    "anthropic-claude": "bedrock",
    "chatgpt-": "openai",
    "claude-": "anthropic",
    "codestral-": "mistral",
    "command-": "cohere",
    "deepseek-": "deepseek",
    "devstral-": "mistral",
    "gemini-": "gemini",
    "glm-": "zai",
    "gpt-": "openai",
    "grok-": "xai",
    "kimi-": "moonshot",
    "magistral-": "mistral",
    "minimax-": "minimax",
    "ministral-": "mistral",
    "mistral-": "mistral",
    "mixtral-": "mistral",
    "moonshot-": "moonshot",
    "o1-": "openai",
    "o3-": "openai",
    "o4-": "openai",
    "pixtral-": "mistral",
    "qwen-": "dashscope",
    "sonar-": "perplexity",
    "us-anthropic-": "bedrock",
}
"""The provider of a model, by what its name begins with: people give a model for a backend."""
