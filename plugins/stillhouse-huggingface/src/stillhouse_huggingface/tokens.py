"""The token of this machine's user, where Hugging Face's own tools keep it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["saved_token"]

_TRUE = frozenset({"1", "on", "true", "yes"})
_MAX_CHARS = 4096


def saved_token() -> str:
    """Return the token of the environment, else that of the file; an empty string if there is none.

    `HF_TOKEN` is the variable. `HF_TOKEN_PATH` names the file, which is `token` in `HF_HOME` else. With
    `HF_HUB_DISABLE_IMPLICIT_TOKEN` neither is used.
    """
    if os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").strip().lower() in _TRUE:
        return ""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        token = os.environ.get(name, "").strip()
        if token:
            return token
    try:
        with _path().open(encoding="utf-8") as file:
            return file.read(_MAX_CHARS).strip()
    except (OSError, UnicodeDecodeError, RuntimeError):  # nobody has logged in, or the home is not known
        return ""


def _path() -> Path:
    given = os.environ.get("HF_TOKEN_PATH")
    if not given:
        home = os.environ.get("HF_HOME")
        if not home:
            home = f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
        given = f"{home}/token"
    return Path(os.path.expandvars(given)).expanduser()
