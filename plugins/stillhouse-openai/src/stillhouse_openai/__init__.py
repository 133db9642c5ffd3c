"""OpenAI's API as a backend of Stillhouse, and every server that speaks it."""

from __future__ import annotations

from stillhouse_openai.anyscale import AnyscaleLLM
from stillhouse_openai.anywhere import OpenAICompatibleLLM
from stillhouse_openai.azure import AzureOpenAILLM
from stillhouse_openai.compatible import CompatibleLLM, efforts
from stillhouse_openai.deepseek import DeepSeekLLM
from stillhouse_openai.groq import GroqLLM
from stillhouse_openai.llm import OpenAILLM
from stillhouse_openai.openrouter import OpenRouterLLM
from stillhouse_openai.provider import Provider, ProviderLLM, provider_class
from stillhouse_openai.together import TogetherLLM
from stillhouse_openai.vllm import ClientvLLM

__all__ = [
    "AnyscaleLLM",
    "AzureOpenAILLM",
    "ClientvLLM",
    "CompatibleLLM",
    "DeepSeekLLM",
    "GroqLLM",
    "OpenAICompatibleLLM",
    "OpenAILLM",
    "OpenRouterLLM",
    "Provider",
    "ProviderLLM",
    "TogetherLLM",
    "efforts",
    "provider_class",
]
