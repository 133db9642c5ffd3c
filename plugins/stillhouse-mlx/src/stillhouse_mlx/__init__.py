"""Models in this process, on MLX."""

from stillhouse_mlx.llm import MlxLLM

__all__ = ["MlxLLM"]
