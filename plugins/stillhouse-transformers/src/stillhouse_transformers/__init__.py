"""Models of the Hugging Face Hub in this process, on transformers."""

from stillhouse_transformers.llm import TransformersLLM

__all__ = ["TransformersLLM"]
