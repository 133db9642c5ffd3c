"""From the fields of the LLM to the arguments of the engine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from stillhouse import ConfigurationError

__all__ = ["check_engine_args", "engine_arguments", "engine_environment"]

_GIB = 1 << 30

# Of the KV cache on a CPU where nobody says how much: the engine would take nearly all memory there is.
_CPU_CACHE = 4 * _GIB

_CPU_SPACE = "VLLM_CPU_KVCACHE_SPACE"

# What fields decide, by the field to use instead.
_RESERVED = {
    "disable_log_stats": "verbose",
    "dtype": "dtype",
    "enable_lora": "lora",
    "enable_prefix_caching": "enable_prefix_caching",
    "enforce_eager": "enforce_eager",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "kv_cache_memory_bytes": "kv_cache_memory",
    "logging_config": "verbose",
    "max_model_len": "max_model_len",
    "max_num_seqs": "max_num_seqs",
    "model": "model",
    "pipeline_parallel_size": "pipeline_parallel_size",
    "quantization": "quantization",
    "revision": "revision",
    "seed": "seed",
    "skip_tokenizer_init": "tokenizer",
    "structured_outputs_config": "structured_output",
    "tensor_parallel_size": "tensor_parallel_size",
    "tokenizer": "tokenizer",
    "trust_remote_code": "trust_remote_code",
}

_SAME_NAME = (
    "dtype",
    "enable_prefix_caching",
    "gpu_memory_utilization",
    "max_model_len",
    "max_num_seqs",
    "pipeline_parallel_size",
    "quantization",
    "seed",
    "tensor_parallel_size",
    "tokenizer",
    "trust_remote_code",
)


def check_engine_args(engine_args: Mapping[str, Any]) -> None:
    """Refuse arguments that fields decide.

    Raises:
        ConfigurationError: there is one.
    """
    for name in engine_args:
        if name in _RESERVED:
            raise ConfigurationError(
                f"engine_args may not set {name!r}", hint=f"use the field {_RESERVED[name]}"
            )


def engine_arguments(llm: Any, model: str, *, is_cpu: bool) -> dict[str, Any]:
    """The arguments of vLLM's engine, without those that have their default.

    Args:
        llm: the LLM, for its fields.
        model: the folder of the model.
        is_cpu: whether the engine computes on a CPU.
    """
    memory = None if llm.kv_cache_memory is None else int(llm.kv_cache_memory * _GIB)
    if is_cpu and memory is None and llm.gpu_memory_utilization is None and not os.environ.get(_CPU_SPACE):
        memory = _cpu_cache()
    arguments = {
        "model": model,
        **{name: getattr(llm, name) for name in _SAME_NAME},
        "kv_cache_memory_bytes": memory,
        # Compiling for a CPU takes minutes and a compiler, and gains little.
        "enforce_eager": is_cpu if llm.enforce_eager is None else llm.enforce_eager,
        # The guides are LLGuidance's: it refuses what it cannot enforce.
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
        "disable_log_stats": True,
    }
    arguments.update(llm.engine_args)
    return {name: value for name, value in arguments.items() if value is not None}


def engine_environment(llm: Any) -> dict[str, str | None]:
    """What the environment of the engine's processes has otherwise than this process's."""
    placed: dict[str, str] = llm.cuda_environment()
    own: dict[str, str | None] = {
        name: value for name, value in placed.items() if os.environ.get(name) != value
    }
    if llm.kv_cache_memory is not None:
        own[_CPU_SPACE] = None  # the engine would take it, and not the argument
    return own


def _cpu_cache() -> int:
    import psutil

    return min(_CPU_CACHE, int(psutil.virtual_memory().available) // 2)
