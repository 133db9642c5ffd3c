"""The models of my-cohere."""

from stillhouse_my_cohere.llm import MyCohereLLM

__all__ = ["MyCohereLLM"]
