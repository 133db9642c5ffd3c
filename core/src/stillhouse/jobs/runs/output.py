"""`write_output`: writes the output of an open run, according to its command."""

from __future__ import annotations

from typing import Any

from stillhouse.jobs.formats.columns import given_names
from stillhouse.jobs.formats.opening import open_writer
from stillhouse.jobs.runs.assembly import UnwritableError, assemble
from stillhouse.jobs.runs.open_run import OpenRun
from stillhouse.jobs.runs.reasons import Reasons

__all__ = ["set_complete", "write_output"]


def write_output(opened: OpenRun) -> tuple[list[int], Reasons]:
    """Write the output of a run, unless rows of the input have changed since they were generated for.

    Returns:
        The indexes of those rows, as `assemble` has them, and why the rows ended.

    Raises:
        UnwritableError: the format does not take what is in the rows.
        ConfigurationError, OSError: the output cannot be written where it is meant to be.
    """
    command, store = opened.command, opened.store
    hooks = opened.llm.registry.hooks()
    opened.written.check_folder()
    columns = command.writing.columns(given_names(opened.reader))
    writer = opened.written.recorded(
        open_writer(command.output, hooks, opened.reader.schema, columns, command.writing.format)
    )
    reasons = Reasons()
    try:
        wrong = assemble(opened.reader, store.finished_rows(), writer, opened.end, reasons, columns)
    except UnwritableError as error:
        error.hint = (
            f"nothing is lost: every finished row is in {store.path}, and the same command with "
            f"-o OTHER.jsonl --state {store.path} writes them as JSONL, without asking again"
        )
        raise
    columns.tell()
    return wrong, reasons


def set_complete(opened: OpenRun, others: dict[str, Any]) -> None:
    """Record that every row is finished, and which outputs have them all.

    Args:
        opened: the run, whose output was written.
        others: its other outputs, as `OpenRun.outputs` has them.
    """
    outputs = {**others, opened.written.key: opened.command.writing.as_json()}
    opened.store.set("complete", {"limit": opened.command.choice.limit, "outputs": outputs})
    opened.outcome = "complete"
