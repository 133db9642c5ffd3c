"""Reading a model with mlx-lm, and what is known of it from its files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stillhouse.errors import ConfigurationError
from stillhouse.local import SamplingDefaults
from stillhouse_mlx.library import Library, many_files

__all__ = ["Device", "Dtype", "Model", "Settings", "read_model"]

Device = Literal["auto", "gpu", "cpu"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

GIB = 2**30

# Where a config says how long a sequence may be.
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")

# Where it does not: models that remember a state of fixed size have no limit of their own.
_UNKNOWN_CONTEXT = 8192


@dataclass(frozen=True)
class Settings:
    """The fields of the LLM that the engine needs.

    Attributes:
        path: the folder of the model.
        adapter_path: the folder of its adapter, if there is one.
        batch_size: how many sequences grow at once; `None` for what suits the device.
        context_length: the longest sequence in tokens; `None` for the model's own limit.
        prompt_cache: how many beginnings of prompts are kept.
        prefill_step: how many tokens of a prompt are read at once.
        device: where to compute.
        dtype: the type of the weights that are not quantized.
        trust_remote_code: whether the model's own code may run.
    """

    path: Path
    adapter_path: str | None
    batch_size: int | None
    context_length: int | None
    prompt_cache: int
    prefill_step: int
    device: Device
    dtype: Dtype
    trust_remote_code: bool


@dataclass(frozen=True)
class Model:
    """A model that was read.

    Attributes:
        model: of mlx-lm.
        tokenizer: of mlx-lm, which wraps one of transformers.
        context_length: how long a sequence may be.
        defaults: the settings of sampling that the model comes with.
    """

    model: Any
    tokenizer: Any
    context_length: int
    defaults: SamplingDefaults


def read_model(library: Library, settings: Settings) -> Model:
    """Read a model and its tokenizer.

    Raises:
        ConfigurationError: it cannot be read; the message says why.
    """
    path = settings.path
    _check_weights(library, path)
    if settings.adapter_path is not None and not Path(settings.adapter_path, "adapter_config.json").is_file():
        raise ConfigurationError(
            f"the folder {settings.adapter_path} has no adapter_config.json, so that it is no adapter",
            hint="give the folder that mlx_lm.lora has written as adapter_path",
        )
    try:
        with many_files():
            model, config = library.utils.load_model(
                path, lazy=True, trust_remote_code=settings.trust_remote_code
            )
            if settings.adapter_path is not None:
                model = library.utils.load_adapters(model, settings.adapter_path)
                model.eval()
            if settings.dtype != "auto":
                model.set_dtype(getattr(library.mx, settings.dtype))
            library.mx.eval(model.parameters())
            tokenizer = library.utils.load_tokenizer(
                path,
                {"trust_remote_code": settings.trust_remote_code},
                eos_token_ids=config.get("eos_token_id"),
            )
    except MemoryError:
        raise
    except Exception as error:  # whatever the code of some architecture makes of its files
        raise _unreadable(path, error) from error
    return Model(model, tokenizer, _context(config, settings), _defaults(path))


def _check_weights(library: Library, path: Path) -> None:
    files = list(path.glob("model*.safetensors"))
    if not files:
        raise ConfigurationError(
            f"the folder {path} has no model*.safetensors, and MLX reads no other weights",
            hint="convert the model with mlx_lm.convert, or choose one with safetensors",
        )
    size = sum(file.stat().st_size for file in files)
    memory = library.mx.device_info().get("memory_size") or os.sysconf("SC_PHYS_PAGES") * os.sysconf(
        "SC_PAGE_SIZE"
    )
    if size > memory:
        raise ConfigurationError(
            f"the weights in {path} take {size / GIB:.1f} GiB, and this machine has {memory / GIB:.1f} GiB",
            hint="choose a smaller model, or one that is quantized: mlx_lm.convert -q",
        )


def _unreadable(path: Path, error: Exception) -> ConfigurationError:
    words = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, KeyError):
        words = f"the key {words} is missing in config.json"
    if "trust_remote_code" in words:
        hint = "if you trust the code that comes with the model: --set trust_remote_code=true"
    elif "not supported" in words:
        hint = "a new architecture needs a new mlx-lm: pip install --upgrade mlx-lm   or use another engine"
    else:
        hint = "check that the folder is whole, and that config.json belongs to the weights"
    return ConfigurationError(f"mlx-lm cannot read the model {path}: {words}", hint=hint)


def _context(config: Mapping[str, Any], settings: Settings) -> int:
    own = [
        value
        for part in (config, config.get("text_config") or {})
        for name in _CONTEXT
        if isinstance(value := part.get(name), int) and value > 0
    ]
    if settings.context_length is None:
        return own[0] if own else _UNKNOWN_CONTEXT
    if own and settings.context_length > own[0]:
        raise ConfigurationError(
            f"context_length is {settings.context_length}, and the model is made for {own[0]} tokens at most",
            hint=f"set context_length to {own[0]} or less, or leave it out",
        )
    return settings.context_length


def _defaults(path: Path) -> SamplingDefaults:
    """What generation_config.json says."""
    try:
        given = json.loads((path / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        given = {}
    return SamplingDefaults.of(given if isinstance(given, dict) else {})
