"""`with_piped`: what is piped into the command is the prompt, where nothing else is."""

from __future__ import annotations

import dataclasses
import os
import stat
import sys
from typing import TYPE_CHECKING

from stillhouse.errors import ConfigurationError

if TYPE_CHECKING:
    from stillhouse.jobs.launch.options import Options

__all__ = ["with_piped"]

MAX_BYTES = 64 * 1024 * 1024


def with_piped(options: Options) -> Options:
    """Return the options with what standard input stands for.

    `--prompt -` reads the prompt from it. Where neither INPUT nor a prompt nor an output is given, what is
    piped is the prompt, too. Rows are read from it only where INPUT is `-`.

    Raises:
        ConfigurationError: the prompt is empty, too large, or not UTF-8.
    """
    if options.prompt == "-" and options.input is None:
        return dataclasses.replace(options, prompt=_prompt())
    if options.prompt is not None or options.input is not None:
        return options
    if options.output is not None or options.estimate or options.preview is not None:
        return options  # what a run reads is named: `-` for rows on standard input
    return dataclasses.replace(options, prompt=_prompt()) if _is_piped() else options


def _is_piped() -> bool:
    """Whether somebody gave standard input something: a pipe or a file, and not a terminal or /dev/null."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError, ConfigurationError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _prompt() -> str:
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ConfigurationError(
            f"the prompt on standard input is larger than {MAX_BYTES // 1024 // 1024} MiB",
            hint="give a file of rows as INPUT",
        )
    try:
        text = data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigurationError(
            "the prompt on standard input is not UTF-8", hint="convert it, for example with iconv"
        ) from None
    if not text.strip():
        raise ConfigurationError(
            "the prompt on standard input is empty", hint="pipe a text into the command, or give INPUT"
        )
    return text
