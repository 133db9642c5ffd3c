"""What an engine is opened with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """The fields of an LLM that say how its model is loaded.

    Attributes:
        model: a folder, a GGUF file, or a repository on the Hugging Face Hub; `None` for the default one.
        revision: of a repository.
        device: such as `cuda:0`, or `auto`.
        ordinal: of the CUDA device that was chosen for the LLM, or `None`.
        dtype: of the weights in memory, or `auto`.
        quantization: the library's configuration, as a dictionary, or its name.
        device_map: the library's; the model is spread over devices by it.
        attn_implementation: the library's name of a way to compute attention.
        trust_remote_code: whether code that comes with the model may be run.
        batch_size: how many sequences are made at a time; `None` for what suits the device.
        context_length: how many tokens prompt and answer may have together; `None` for what the model has.
        model_kwargs: further arguments of the library's `from_pretrained`.
    """

    model: str | None = None
    revision: str | None = None
    device: str = "auto"
    ordinal: int | None = None
    dtype: str = "auto"
    quantization: str | dict[str, Any] | None = None
    device_map: str | dict[str, Any] | None = None
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    batch_size: int | None = None
    context_length: int | None = None
    model_kwargs: dict[str, Any] = field(default_factory=dict)
