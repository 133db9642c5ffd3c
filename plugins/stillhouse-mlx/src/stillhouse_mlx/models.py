"""Reading a model with mlx-lm, and what is known of it from its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stillhouse.errors import ConfigurationError
from stillhouse.local import SamplingDefaults
from stillhouse_mlx.library import Library, many_files
from stillhouse_mlx.memory import available, size_text

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
        prefill_step: how many tokens of a prompt are read at once; `None` for what suits the device.
        device: where to compute.
        dtype: the type of the weights that are not quantized.
        trust_remote_code: whether the model's own code may run.
    """

    path: Path
    adapter_path: str | None
    batch_size: int | None
    context_length: int | None
    prompt_cache: int
    prefill_step: int | None
    device: Device
    dtype: Dtype
    trust_remote_code: bool


@dataclass(frozen=True)
class Model:
    """A model that was read.

    Attributes:
        model: of mlx-lm.
        tokenizer: of mlx-lm, which wraps one of transformers.
        config: what config.json says.
        context_length: how long a sequence may be.
        eos: the tokens that end an answer.
        defaults: the settings of sampling that the model comes with.
    """

    model: Any
    tokenizer: Any
    config: Mapping[str, Any]
    context_length: int
    eos: frozenset[int]
    defaults: SamplingDefaults


def read_model(library: Library, settings: Settings, is_gpu: bool) -> Model:
    """Read a model and its tokenizer.

    Args:
        library: the library.
        settings: fields of the LLM.
        is_gpu: whether it is read for a GPU.

    Raises:
        ConfigurationError: it cannot be read; the message says why.
    """
    path = settings.path
    context_length, defaults = _context_length(_config(path), settings), _defaults(path)
    if not any(path.glob("model*.safetensors")):
        raise ConfigurationError(
            f"the folder {path} has no model*.safetensors, and MLX reads no other weights",
            hint="convert the model with mlx_lm.convert, or choose one with safetensors",
        )
    if settings.adapter_path is not None and not Path(settings.adapter_path, "adapter_config.json").is_file():
        raise ConfigurationError(
            f"the folder {settings.adapter_path} has no adapter_config.json, so it is not an adapter",
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
            # So far nothing was read but what there is.
            _check_memory(library, path, model, is_gpu)
            library.mx.eval(model.parameters())
            tokenizer = library.utils.load_tokenizer(
                path,
                {"trust_remote_code": settings.trust_remote_code},
                eos_token_ids=config.get("eos_token_id"),
            )
    except ConfigurationError:
        raise
    except Exception as error:  # whatever the code of some architecture makes of its files
        raise _unreadable(path, error) from error
    eos = frozenset(end for end in tokenizer.eos_token_ids if type(end) is int and end >= 0)
    return Model(model, tokenizer, config, context_length, eos, defaults)


def _check_memory(library: Library, path: Path, model: Any, is_gpu: bool) -> None:
    weights = sum(array.nbytes for _, array in library.flattened(model.parameters()))
    if is_gpu:
        memory = library.mx.device_info().get("memory_size")
    else:
        memory = available()
    if memory is not None and weights > memory:
        raise ConfigurationError(
            f"the weights in {path} take {size_text(weights)} of memory, and there are {size_text(memory)} "
            "for them",
            hint="choose a smaller model, or one that is quantized: mlx_lm.convert -q",
        )


def _unreadable(path: Path, error: Exception) -> ConfigurationError:
    words = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, KeyError):
        words = f"the key {words} is missing in config.json"
    if "trust_remote_code" in words:
        hint = "if you trust the code that comes with the model: --set trust_remote_code=true"
    elif "not supported" in words:
        hint = (
            "a new architecture needs a new mlx-lm: stillhouse install --upgrade mlx-lm   "
            "or use another engine"
        )
    else:
        hint = "check that the folder is whole, and that config.json belongs to the weights"
    return ConfigurationError(f"mlx-lm cannot read the model {path}: {words}", hint=hint)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path / 'config.json'} cannot be read: {error}", hint="download the model again"
        ) from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise ConfigurationError(
            f"{path / 'config.json'} has no model_type, so it is not the config of a language model",
            hint="give the folder of a model as Hugging Face or mlx_lm.convert writes it",
        )
    return config


def _context_length(config: Mapping[str, Any], settings: Settings) -> int:
    own = [
        value
        for part in (config, config.get("text_config"))
        if isinstance(part, dict)
        for name in _CONTEXT
        if isinstance(value := part.get(name), int) and value > 0
    ]
    if settings.context_length is None:
        return own[0] if own else _UNKNOWN_CONTEXT
    if own and settings.context_length > own[0]:
        raise ConfigurationError(
            f"context_length is {settings.context_length}, but the model supports at most {own[0]} tokens",
            hint=f"set context_length to {own[0]} or less, or leave it out",
        )
    return settings.context_length


def _defaults(path: Path) -> SamplingDefaults:
    """What generation_config.json says. One that is cut off says nothing, as for mlx-lm."""
    try:
        given = json.loads((path / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return SamplingDefaults()
    ends = given.get("eos_token_id") if isinstance(given, dict) else given
    if not isinstance(given, dict) or not (ends is None or isinstance(ends, (int, str, list))):
        raise ConfigurationError(
            f"{path / 'generation_config.json'} contains no generation settings: {str(ends)[:60]!r}",
            hint="correct it, or remove it",
        )
    return SamplingDefaults.of(given)
