"""OpenAI's API as a backend of Stillhouse."""

from __future__ import annotations

from stillhouse_openai.llm import OpenAILLM

__all__ = ["OpenAILLM"]
