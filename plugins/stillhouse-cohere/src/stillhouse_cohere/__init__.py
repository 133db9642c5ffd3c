"""Cohere's chat API as a backend of Stillhouse."""

from __future__ import annotations

from stillhouse_cohere.llm import CohereLLM

__all__ = ["CohereLLM"]
