"""The names that this project provides or knows: those built in, those of its packages, and servers.

All but those built in are for the hint when a name is not installed. Nothing here is imported or preferred.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ALIASES", "BUILT_IN", "MODELS", "PACKAGES", "SERVERS", "SOURCES", "Server"]

BUILT_IN: dict[str, str] = {"echo": "stillhouse.echo:EchoLLM"}
"""The built-in LLMs: name to `module:attribute`."""

PACKAGES: dict[str, str] = {
    "anthropic": "stillhouse-anthropic",
    "anyscale": "stillhouse-openai",
    "azure-openai": "stillhouse-openai",
    "groq": "stillhouse-openai",
    "llamacpp": "stillhouse-llamacpp",
    "openai": "stillhouse-openai",
    "together": "stillhouse-openai",
    "vllm-server": "stillhouse-openai",
}
"""The distribution that provides an LLM, by the LLM's name."""

SOURCES: dict[str, str] = {"datasets": "stillhouse-datasets"}
"""The distribution that opens a source or a target of bulk runs, by what stands before the colon."""


class Server(NamedTuple):
    """A server or a provider that has no backend of its own, because another one speaks its API.

    Attributes:
        base_url: the address to set.
        key: the variable in which its users keep the key; empty where a server of one's own needs none.
        backend: the LLM that speaks its API.
    """

    base_url: str
    key: str = ""
    backend: str = "openai"


SERVERS: dict[str, Server] = {
    "cerebras": Server("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "cohere": Server("https://api.cohere.ai/compatibility/v1", "CO_API_KEY"),
    "dashscope": Server("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "deepinfra": Server("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "deepseek": Server("https://api.deepseek.com", "DEEPSEEK_API_KEY"),
    "featherless": Server("https://api.featherless.ai/v1", "FEATHERLESS_AI_API_KEY"),
    "fireworks": Server("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "friendli": Server("https://api.friendli.ai/serverless/v1", "FRIENDLIAI_API_KEY"),
    "gemini": Server("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "huggingface": Server("https://router.huggingface.co/v1", "HF_TOKEN"),
    "hyperbolic": Server("https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY"),
    "lambda": Server("https://api.lambda.ai/v1", "LAMBDA_API_KEY"),
    "litellm-proxy": Server("http://localhost:4000/v1"),
    "llama-server": Server("http://localhost:8080/v1"),
    "lmstudio": Server("http://localhost:1234/v1"),
    "localai": Server("http://localhost:8080/v1"),
    "minimax": Server("https://api.minimax.io/v1", "MINIMAX_API_KEY"),
    "mistral": Server("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "moonshot": Server("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "nebius": Server("https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY"),
    "novita": Server("https://api.novita.ai/v3/openai", "NOVITA_API_KEY"),
    "nvidia-nim": Server("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
    "ollama": Server("http://localhost:11434/v1"),
    "openrouter": Server("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "perplexity": Server("https://api.perplexity.ai", "PERPLEXITY_API_KEY"),
    "sambanova": Server("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "sglang": Server("http://localhost:30000/v1"),
    "tgi": Server("http://localhost:8080/v1"),
    "vllm": Server("http://localhost:8000/v1", backend="vllm-server"),
    "xai": Server("https://api.x.ai/v1", "XAI_API_KEY"),
    "zai": Server("https://api.z.ai/api/paas/v4", "ZAI_API_KEY"),
}
"""Servers and providers, by the name that people ask for."""

ALIASES: dict[str, str] = {
    "azure": "azure-openai",
    "claude": "anthropic",
    "clientvllm": "vllm-server",
    "fireworks-ai": "fireworks",
    "glm": "zai",
    "google": "gemini",
    "grok": "xai",
    "hf": "huggingface",
    "hugging-face": "huggingface",
    "inference-endpoints": "huggingface",
    "inferenceendpoints": "huggingface",
    "kimi": "moonshot",
    "litellm": "litellm-proxy",
    "llama-cpp": "llamacpp",
    "lm-studio": "lmstudio",
    "local-ai": "localai",
    "mistralai": "mistral",
    "nim": "nvidia-nim",
    "nvidia": "nvidia-nim",
    "open-router": "openrouter",
    "qwen": "dashscope",
    "togetherai": "together",
    "vertexai": "gemini",
    "z-ai": "zai",
}
"""Other words for the same, in small letters with hyphens, without distilabel's LLM at the end."""

MODELS: dict[str, str] = {
    "chatgpt-": "openai",
    "claude-": "anthropic",
    "deepseek-": "deepseek",
    "gemini-": "gemini",
    "gpt-": "openai",
    "grok-": "xai",
    "mistral-": "mistral",
    "o1-": "openai",
    "o3-": "openai",
    "o4-": "openai",
}
"""The provider of a model, by what its name begins with: people give a model for a backend."""
