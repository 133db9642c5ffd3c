"""Hugging Face's inference as a backend of Stillhouse."""

from __future__ import annotations

from stillhouse_huggingface.llm import InferenceEndpointsLLM

__all__ = ["InferenceEndpointsLLM"]
