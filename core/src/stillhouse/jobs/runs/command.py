"""`Command`: the complete description of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillhouse.errors import ERROR_KINDS, ConfigurationError, near_matches
from stillhouse.jobs.formats.reading import Reading
from stillhouse.jobs.formats.rows import RowFormatter
from stillhouse.jobs.formats.spools import Spool
from stillhouse.jobs.formats.writing import Writing
from stillhouse.jobs.selection.choosing import Choice
from stillhouse.jobs.sources.names import Names
from stillhouse.jobs.sources.opening import open_input
from stillhouse.jobs.spending.budget import Ceiling
from stillhouse.protocols import HookCalls, RowReader

__all__ = ["Command", "parse_kinds"]


@dataclass(frozen=True)
class Command:
    """The complete description of a run.

    Attributes:
        source: the input, for messages and hooks.
        names: the files and the sources of plugins that it consists of; `None` means only `source`.
        reading: the given options for reading its files.
        output: the output: a file, or a target of a plugin.
        formatter: turns a row into an input.
        formatting: the formatter's settings, as shown when a changed command is refused.
        num_generations: number of generations for each row.
        arguments: generation parameters.
        choice: which rows of the input belong to the run.
        extend: whether the input may have more rows than the run was started with.
        restart: delete an earlier run, and replace the output.
        retry: the kinds of errors whose rows are retried.
        offline: generate through the provider's offline batches.
        in_order: generate in the order of `LLM.batch_key`, on this machine.
        wait: seconds between two polls until the batches are done; `None` polls once.
        finish_online: cancel the batches that are not done, and generate their other rows online.
        ceiling: the limits of tokens and cost; they may differ when the run is resumed.
        max_failures: number of rows that may fail, in one process, before the run stops: 0 for any number,
            and `None` to stop only if the run is hopeless.
        executor: the executor that generates, as `NAME` or `NAME:ADDRESS`; `None` means this process.
        workers: number of workers of the executor; `None` means the default.
        traceback: whether the traceback of a backend's own bug is shown.
        verbose: whether requests and answers are shown.
        spool: saves an input that is not a file, such as standard input; `None` for other inputs.
        writing: how the output is written; it may differ when the run is resumed.
        state: the path of the run's state; `None` for the path next to the output.
        state_copy: the address of the copy of the state, with its secrets; `None` for no copy.
        metrics: the file that gets the run's progress for Prometheus; `None` for no file.
        given: the parts of the command, as they were given, without secrets; for the report.
        reads: the files other than the source that were read for the run, such as settings.
    """

    source: str
    output: str
    formatter: RowFormatter
    names: Names | None = None
    reading: Reading = field(default_factory=Reading)
    formatting: dict[str, Any] = field(default_factory=dict)
    num_generations: int = 1
    arguments: dict[str, Any] = field(default_factory=dict)
    choice: Choice = field(default_factory=Choice)
    extend: bool = False
    restart: bool = False
    retry: Sequence[str] = ()
    offline: bool = False
    in_order: bool = False
    wait: float | None = None
    finish_online: bool = False
    ceiling: Ceiling | None = None
    max_failures: int | None = None
    executor: str | None = None
    workers: int | None = None
    traceback: bool = False
    verbose: bool = False
    writing: Writing = field(default_factory=Writing)
    state: Path | None = None
    state_copy: str | None = field(default=None, repr=False)
    metrics: Path | None = None
    given: Sequence[Sequence[str]] = ()
    reads: Sequence[Path] = ()
    spool: Spool | None = None

    def open_input(self, hooks: HookCalls) -> RowReader:
        """Open the input, where it is not saved in a spool.

        Raises:
            ConfigurationError: it cannot be read.
        """
        return open_input(self.names or Names([self.source]), hooks, self.reading)

    @property
    def shaping(self) -> dict[str, Any]:
        """What the output depends on, in addition to the LLM and its arguments, as shown if it changes."""
        return {**self.formatting, **self.choice.shaping}

    @property
    def uses_batches(self) -> bool:
        """Whether the run submits, collects or cancels offline batches."""
        return self.offline or self.finish_online


def parse_kinds(text: str | Sequence[str]) -> list[str]:
    """Return the error kinds in a text such as `rate_limit,timeout`, or in a list; `all` means every kind.

    Raises:
        ConfigurationError: there is no such kind.
    """
    items = text.split(",") if isinstance(text, str) else text
    kinds = [item.strip() for item in items if item.strip()]
    if not kinds and isinstance(text, str):
        raise ConfigurationError("--retry names no kind of error", hint="give all, or some of them")
    if kinds == ["all"]:
        return list(ERROR_KINDS)
    for kind in kinds:
        if kind not in ERROR_KINDS:
            raise ConfigurationError(
                f"there is no kind of error {kind!r}", hint=near_matches(kind, [*ERROR_KINDS, "all"])
            )
    return kinds
