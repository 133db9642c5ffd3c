"""The models of cohere."""

from stillhouse_cohere.llm import CohereLLM

__all__ = ["CohereLLM"]
