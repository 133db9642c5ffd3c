"""Models on this machine, on vLLM."""

from stillhouse_vllm.llm import VLLM

__all__ = ["VLLM"]
