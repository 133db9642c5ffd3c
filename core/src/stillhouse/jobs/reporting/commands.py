"""The command of a run as text to copy, with an option more or less."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from stillhouse._settings.redaction import MASK
from stillhouse.jobs.reporting.chats import cut
from stillhouse.jobs.runs.provenance import Provenance

__all__ = ["command_text", "line_to_copy", "retry_text"]

MAX_CHARACTERS = 8000
"""How much of a command is shown."""

MAX_RETRY_CHARACTERS = 2000

MAX_LINE_CHARACTERS = 500
"""How long a command is that is printed as a line; a longer one is not copied from a terminal."""

# What a repeated command must not do again, or what another retry replaces.
_ONCE = frozenset({"--restart", "--retry", "--extend", "--finish-online"})


def command_text(found: Provenance | None) -> str:
    """Return the command as it was given; empty where the state does not have it."""
    if found is None or not found.command:
        return ""
    if not found.is_shell:
        return cut(found.command[0][0], MAX_CHARACTERS) if found.command[0] else ""
    return cut(_joined(found.command), MAX_CHARACTERS)


def retry_text(found: Provenance | None, option: str = "") -> str:
    """Return the command that generates failed rows again.

    It is empty where a shell did not give the command, and where it is too long to show.

    Args:
        found: what a session ran with.
        option: the option that does so, such as `--retry timeout`; empty for rows that are queued already.
    """
    if found is None or not found.is_shell:
        return ""
    text = f"{_joined(part for part in found.command if part[0] not in _ONCE)} {option}".rstrip()
    return text if len(text) <= MAX_RETRY_CHARACTERS else ""


def line_to_copy(found: Provenance | None, option: str = "") -> str:
    """Return what `retry_text` does, as a line of a terminal, or else words that say the same."""
    text = retry_text(found, option)
    # One with a secret cannot be repeated as it is printed.
    if text and MASK not in text and len(text) <= MAX_LINE_CHARACTERS and text.isprintable():
        return text
    return f"the same command with {option}" if option else "the same command"


def _joined(parts: Iterable[list[str]]) -> str:
    return " ".join(shlex.join(part) for part in parts)
