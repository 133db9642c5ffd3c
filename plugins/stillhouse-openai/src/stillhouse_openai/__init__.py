"""OpenAI's API as a backend of Stillhouse, and every server that speaks it."""

from __future__ import annotations

from stillhouse_openai.anyscale import AnyscaleLLM
from stillhouse_openai.azure import AzureOpenAILLM
from stillhouse_openai.compatible import CompatibleLLM
from stillhouse_openai.groq import GroqLLM
from stillhouse_openai.llm import OpenAILLM
from stillhouse_openai.together import TogetherLLM
from stillhouse_openai.vllm import ClientvLLM

__all__ = [
    "AnyscaleLLM",
    "AzureOpenAILLM",
    "ClientvLLM",
    "CompatibleLLM",
    "GroqLLM",
    "OpenAILLM",
    "TogetherLLM",
]
