"""Ollama's own API as a backend of Stillhouse."""

from __future__ import annotations

from stillhouse_ollama.llm import OllamaLLM

__all__ = ["OllamaLLM"]
