"""Google's Gemini API, and models on Vertex AI, as backends of Stillhouse."""

from __future__ import annotations

from stillhouse_google.gemini import GeminiLLM
from stillhouse_google.vertexai import VertexAILLM

__all__ = ["GeminiLLM", "VertexAILLM"]
