"""GGUF models in this process, on llama.cpp."""

from stillhouse_llamacpp.llm import LlamaCppLLM

__all__ = ["LlamaCppLLM"]
