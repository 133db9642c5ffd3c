"""Loading a model: torch and transformers are imported with this module, which only `load()` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from stillhouse.errors import ConfigurationError
from stillhouse.local import default_gguf, find_model
from stillhouse_transformers.engine import Engine
from stillhouse_transformers.quiet import Silencer, environment_kept, without_bars
from stillhouse_transformers.settings import Settings

__all__ = ["device_of", "open_engine"]

# The context of a model that says nothing about it.
_CONTEXT = 2048

# What a tokenizer without a limit has as its limit is astronomic.
_LIMIT = 10**9


def device_of(name: str, ordinal: int | None = None) -> str:
    """Return the device of a name, which may be `auto`.

    Args:
        name: the name.
        ordinal: of the CUDA device to use if the name has none.

    Raises:
        ConfigurationError: it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None and ordinal is not None:
            device = torch.device("cuda", ordinal)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(1, device=device)
    except (AssertionError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"the device {name!r} is not available: {_words(error)}",
            hint='choose "cpu", "cuda", "cuda:1", "mps" …, or "auto" for the best available one',
        ) from error
    return str(device)


def open_engine(settings: Settings) -> Engine:
    """Return a loaded model. The thread that calls it is the one that uses it.

    Raises:
        ConfigurationError: there is no such model or device, or the library cannot load it.
    """
    silencer = Silencer()
    try:
        device = device_of(settings.device, settings.ordinal)
        path = (
            default_gguf()
            if settings.model is None
            else find_model(settings.model, revision=settings.revision, gguf=True)
        )
        with without_bars(), environment_kept():
            tokenizer = _tokenizer(path, settings)
            model = _model(path, device, settings)
        model.eval().requires_grad_(False)
        return Engine(model, tokenizer, _context(model, tokenizer, settings), settings.batch_size, silencer)
    except BaseException:
        silencer.close()
        raise


def _place(path: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of a model, and the arguments that name its GGUF file if it is one."""
    return (path.parent, {"gguf_file": path.name}) if path.is_file() else (path, {})


def _tokenizer(path: Path, settings: Settings) -> Any:
    folder, named = _place(path)
    try:
        return transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=settings.trust_remote_code, **named
        )
    except Exception as error:
        raise _failed(f"the tokenizer of {path}", error) from error


def _model(path: Path, device: str, settings: Settings) -> Any:
    folder, named = _place(path)
    arguments: dict[str, Any] = {"dtype": _dtype(settings.dtype, device), **named}
    if named:
        arguments["quantization_config"] = transformers.GgufConfig(dequantize=True)
    if settings.quantization is not None:
        arguments["quantization_config"] = _quantization(settings.quantization)
    if settings.attn_implementation is not None:
        arguments["attn_implementation"] = settings.attn_implementation
    if settings.device_map is not None:
        arguments["device_map"] = settings.device_map
    elif device != "cpu":
        arguments["device_map"] = {"": device}
    arguments.update(trust_remote_code=settings.trust_remote_code, output_loading_info=True)
    arguments.update(settings.model_kwargs)
    try:
        model, found = transformers.AutoModelForCausalLM.from_pretrained(folder, **arguments)
    except Exception as error:
        raise _failed(str(path), error) from error
    # The library fills what is missing with random numbers.
    lacking = sorted(
        {*found.get("missing_keys", ()), *(str(key) for key in found.get("mismatched_keys", ()))}
    )
    if lacking:
        raise ConfigurationError(
            f"the weights in {path} lack {len(lacking)} that the model requires, such as {lacking[0]}",
            hint="download the model again: a file may be missing, or belong to another model",
        )
    return model


def _dtype(name: str, device: str) -> Any:
    if name == "auto":
        # On a CPU the text of a row is then the same in every batch, and computing is fastest.
        return torch.float32 if device == "cpu" else "auto"
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ConfigurationError(
            f"there is no dtype {name!r}", hint='choose "float32", "bfloat16", "float16" or "auto"'
        )
    return dtype


def _quantization(given: str | dict[str, Any]) -> Any:
    known = transformers.quantizers.auto.AUTO_QUANTIZATION_CONFIG_MAPPING
    settings: dict[str, Any] = {"quant_method": given} if isinstance(given, str) else dict(given)
    method = str(settings.get("quant_method", ""))
    if method.startswith("bitsandbytes_"):
        settings.setdefault(f"load_in_{method.removeprefix('bitsandbytes_')}", True)
        settings["quant_method"] = "bitsandbytes"
    try:
        return transformers.quantizers.auto.AutoQuantizationConfig.from_dict(settings)
    except Exception as error:
        raise ConfigurationError(
            f"the quantization {given!r} cannot be used: {_words(error)}",
            hint=f"give the library's settings with quant_method, or one of {', '.join(sorted(known))}",
        ) from error


def _context(model: Any, tokenizer: Any, settings: Settings) -> int:
    config = model.config.get_text_config(decoder=True)
    own = getattr(config, "max_position_embeddings", None)
    if not isinstance(own, int) or own < 1:
        limit = getattr(tokenizer, "model_context_length", None)
        own = int(limit) if isinstance(limit, int) and 0 < limit < _LIMIT else None
    if settings.context_length is None:
        return own or _CONTEXT
    if own is not None and settings.context_length > own:
        raise ConfigurationError(
            f"context_length is {settings.context_length}, but the model supports at most {own} tokens",
            hint=f"set context_length to {own} or less, or leave it out",
        )
    return settings.context_length


def _failed(what: str, error: Exception) -> ConfigurationError:
    words = str(error)
    # With a version, it is the library's name: the plain name is that of this backend.
    hint = (
        "check that the model is whole; for a new architecture, "
        'stillhouse install --upgrade "transformers>=5"'
    )
    if "trust_remote_code" in words:
        hint = "set trust_remote_code to True if you trust the code that comes with the model"
    elif isinstance(error, MemoryError) or "memory" in words.lower():
        hint = "free some memory, or choose a smaller model, a smaller dtype (bfloat16) or a quantization"
    elif isinstance(error, ImportError):
        hint = "install what is missing"
    return ConfigurationError(f"transformers cannot load {what}: {_words(error)}", hint=hint)


def _words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
