"""Anthropic's API as a backend of Stillhouse."""

from __future__ import annotations

from stillhouse_anthropic.llm import AnthropicLLM

__all__ = ["AnthropicLLM"]
