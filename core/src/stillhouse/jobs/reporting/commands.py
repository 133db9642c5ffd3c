"""The command of a run as text to copy, with an option more or less."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from stillhouse.jobs.reporting.chats import cut
from stillhouse.jobs.runs.provenance import Provenance

__all__ = ["command_text", "retry_text"]

MAX_CHARACTERS = 8000
"""How much of a command is shown."""

MAX_RETRY_CHARACTERS = 2000

# What a repeated command must not do again, or what another retry replaces.
_ONCE = frozenset({"--restart", "--retry", "--extend", "--finish-online"})


def command_text(found: Provenance | None) -> str:
    """Return the command as it was given; empty where the state does not have it."""
    if found is None or not found.command:
        return ""
    if not found.is_shell:
        return cut(found.command[0][0], MAX_CHARACTERS) if found.command[0] else ""
    return cut(_joined(found.command), MAX_CHARACTERS)


def retry_text(found: Provenance | None, option: str) -> str:
    """Return the command that generates failed rows again.

    It is empty where a shell did not give the command, and where it is too long to show.

    Args:
        found: what a session ran with.
        option: the option that does so, such as `--retry timeout`.
    """
    if found is None or not found.is_shell:
        return ""
    text = f"{_joined(part for part in found.command if part[0] not in _ONCE)} {option}"
    return text if len(text) <= MAX_RETRY_CHARACTERS else ""


def _joined(parts: Iterable[list[str]]) -> str:
    return " ".join(shlex.join(part) for part in parts)
