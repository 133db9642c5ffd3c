"""API keys in the system's keyring, by the names of the environment variables that they stand in for.

A file in the user's configuration folder has the names of the keys that were stored, and nothing else: a
keyring need not be able to list its entries, and asking it may show the user a window. So it is asked, and
the library imported, only for a key that was stored.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError

__all__ = ["remove_key", "set_key", "stored_key", "stored_names"]

SERVICE = "stillhouse"
NO_LIBRARY = install_command("stillhouse[keys]")

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,127}")
_MAX_BYTES = 2**16


def _names_file() -> Path:
    import platformdirs

    return Path(platformdirs.user_config_dir("stillhouse", appauthor=False)) / "keys.json"


def stored_names() -> list[str]:
    """Return the names of the keys that were stored, sorted. A file that cannot be read has none."""
    try:
        with _names_file().open("rb") as stream:
            given = json.loads(stream.read(_MAX_BYTES))["keys"]
        return sorted({name for name in given if isinstance(name, str) and _NAME.fullmatch(name)})
    except (OSError, ValueError, KeyError, TypeError):
        return []


def stored_key(name: str) -> str:
    """Return the key that was stored under a name, or an empty string if there is none that can be read."""
    if name not in stored_names():
        return ""
    with contextlib.suppress(Exception):  # a keyring that is locked, or whose service does not run
        found = importlib.import_module("keyring").get_password(SERVICE, name)
        return found if isinstance(found, str) else ""
    return ""


def set_key(name: str, key: str) -> None:
    """Store a key under the name of an environment variable.

    Raises:
        ConfigurationError: the name or the key is not valid, or there is no keyring.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name[:80]!r} is not the name of an environment variable",
            hint="write it as OPENAI_API_KEY, or give the name of an LLM",
        )
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigurationError(
            "the key is empty" if not key else "the key has characters that no key has",
            hint="copy the key again, without anything else",
        )
    names = stored_names()
    _ask(lambda keyring: keyring.set_password(SERVICE, name, key))
    if name not in names:
        _write([*names, name])


def remove_key(name: str) -> bool:
    """Remove a key; return whether there was one.

    Raises:
        ConfigurationError: there is no keyring.
    """
    names = stored_names()
    if name not in names:
        return False

    def delete(keyring: Any) -> None:
        with contextlib.suppress(keyring.errors.PasswordDeleteError):  # somebody else removed it
            keyring.delete_password(SERVICE, name)

    _ask(delete)
    _write([other for other in names if other != name])
    return True


def _ask(action: Any) -> None:
    try:
        keyring: Any = importlib.import_module("keyring")
        errors: Any = importlib.import_module("keyring.errors")
    except ImportError:
        raise ConfigurationError("keys are stored by the library keyring", hint=NO_LIBRARY) from None
    try:
        action(keyring)
    except errors.NoKeyringError:
        raise ConfigurationError(
            "this system has no keyring that can be used",
            hint="set the environment variable instead, or install a keyring: keyring --list-backends",
        ) from None
    except Exception as error:  # of a backend; its text may quote the key
        raise ConfigurationError(
            f"the system's keyring refused: {type(error).__name__}",
            hint="unlock it, or set the environment variable instead",
        ) from None


def _write(names: list[str]) -> None:
    path = _names_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".keys-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump({"keys": sorted(names)}, stream)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}", hint=f"correct the permissions of {path.parent}"
        ) from None
