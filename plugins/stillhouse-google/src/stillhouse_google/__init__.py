"""Google's Gemini API, and models on Vertex AI, as backends of Stillhouse."""

from __future__ import annotations

from stillhouse_google.gemini import GeminiLLM

__all__ = ["GeminiLLM"]
