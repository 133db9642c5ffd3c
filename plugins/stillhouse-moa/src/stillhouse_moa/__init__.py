"""A mixture of agents as a backend of Stillhouse."""

from __future__ import annotations

from stillhouse_moa.llm import MixtureOfAgentsLLM

__all__ = ["MixtureOfAgentsLLM"]
