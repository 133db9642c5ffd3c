"""LiteLLM as a backend of Stillhouse."""

from __future__ import annotations

from stillhouse_litellm.llm import LiteLLM

__all__ = ["LiteLLM"]
