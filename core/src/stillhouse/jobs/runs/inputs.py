"""`input_of`: opens the input of a command without a run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stillhouse.jobs.runs.command import Command
from stillhouse.llm import LLM
from stillhouse.protocols import RowReader

__all__ = ["input_of"]


@contextlib.contextmanager
def input_of(llm: LLM, command: Command) -> Iterator[RowReader]:
    """Open the input of a command for the block; an input that is not a file is saved during the block."""
    with contextlib.ExitStack() as resources:
        if command.spool is None:
            reader = command.open_input(llm.registry.hooks())
        else:
            folder = resources.enter_context(tempfile.TemporaryDirectory(prefix="stillhouse-"))
            reader = command.spool.open(command.spool.save(Path(folder)))
        yield resources.enter_context(contextlib.closing(reader))
