"""Addresses such as `s3://…`: the file system behind one through `fsspec`, and errors without its secrets."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from stillhouse._settings.redaction import Redactor
from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.sources.names import is_address, shown

__all__ = ["file_system", "fsspec_for", "problem_of", "shown_address"]


def fsspec_for(name: str) -> Any:
    """Return the library `fsspec`.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import fsspec
    except ImportError:
        raise ConfigurationError(
            f"{shown_address(name)} is an address, which needs fsspec; it is not installed",
            hint=install_command("stillhouse[remote]"),
        ) from None
    return fsspec


def file_system(name: str) -> tuple[Any, str]:
    """Return the file system behind an address or a path, and the path there.

    Raises:
        ConfigurationError: `fsspec` is not installed.
        Exception: whatever the library for this kind of address raises; see `problem_of`.
    """
    system, path = fsspec_for(name).core.url_to_fs(name)
    return system, path


def shown_address(name: str) -> str:
    """Return an address for a message or a record, without its login and its query."""
    if not is_address(name):
        return name
    return "::".join(part.partition("?")[0] for part in shown(name).split("::"))


def problem_of(name: str, error: Exception) -> tuple[str, str]:
    """Describe an error of the library behind an address, without the secrets in the address.

    Returns:
        What happened, and what to do.
    """
    # What a library says may quote the address, with the login in it.
    reason = Redactor(_secrets(name)).redact(str(error).strip())
    hint = "check the address, and the access to it"
    if isinstance(error, ImportError):
        hint = _hint_for_library(error)
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__, hint


def _secrets(name: str) -> set[str]:
    """Return the login of an address, and the values in its query."""
    secrets: set[str] = set()
    for part in name.split("::"):
        login = part.partition("://")[2].partition("/")[0].rpartition("@")[0]
        secrets |= {login, *login.split(":"), *(value for _, value in parse_qsl(part.partition("?")[2]))}
    return {secret for secret in secrets if secret}


def _hint_for_library(error: ImportError) -> str:
    for name in ("s3fs", "gcsfs", "adlfs", "huggingface_hub", "aiohttp", "requests", "paramiko"):
        if name in str(error):
            return install_command(name)
    return "install the library for this kind of address"
