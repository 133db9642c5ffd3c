"""Mistral's API as a backend of Stillhouse."""

from __future__ import annotations

from stillhouse_mistral.llm import MistralLLM

__all__ = ["MistralLLM"]
