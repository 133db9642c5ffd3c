"""`OpenRun`: a run that this process holds, with its input, its store and its output.

Over 300 lines: it is one class, whose checks have an order in which nothing is replaced too early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stillhouse._wording import number_of
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.opening import open_writer, output_path
from stillhouse.jobs.formats.partial import PartialFolder
from stillhouse.jobs.formats.targets import followed
from stillhouse.jobs.runs.batches import check_restart
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.looking import look_at_run
from stillhouse.jobs.runs.offline import has_batches, jobs_of
from stillhouse.jobs.runs.provenance import Provenance, provenance_of
from stillhouse.jobs.runs.state_copies import begin_copying, check_of, state_copy_of
from stillhouse.jobs.selection.choosing import ChosenRows
from stillhouse.jobs.selection.repeats import Repeats
from stillhouse.jobs.sources.names import Names
from stillhouse.jobs.sources.opening import check_output
from stillhouse.jobs.spending.budget import Budget
from stillhouse.jobs.spending.prices import offer_of
from stillhouse.jobs.store.database import Outcome, StoreError, store_path
from stillhouse.jobs.store.fingerprint import InputChanges, check_unchanged, command_of
from stillhouse.jobs.store.places import (
    check_places,
    check_source,
    files_named_in,
    places_of,
    remove_state,
    spool_path,
    take,
)
from stillhouse.jobs.store.salvage import unknown_command
from stillhouse.jobs.store.store import SqliteStore
from stillhouse.jobs.store.streams import check_streams
from stillhouse.jobs.store.written import WrittenOutput, check_replaceable
from stillhouse.llm import LLM
from stillhouse.offline.ledger import BatchLedger
from stillhouse.protocols import Row, RowReader

if TYPE_CHECKING:
    from stillhouse.jobs.copies.copying import StateCopier

__all__ = ["OpenRun"]


class OpenRun:
    """A run that this process holds; a context manager that releases it.

    Opening checks everything that can be checked before anything is replaced, and in this order: the
    places, the lock, the output's format, the provider's batches, the input, the earlier command.

    Args:
        llm: the LLM; it need not be loaded.
        command: what the run is asked to do.

    Attributes:
        llm: the LLM.
        command: the command.
        output: the path of the output.
        source: reads the input.
        reader: reads the rows of the input that belong to the run.
        repeats: its rows with the same request as an earlier row; `None` until they are computed.
        look: the findings about the prompt in its first rows.
        digest: the digest of the input when the run was opened.
        store: the rows; it has the lock.
        ledger: the offline batches; `None` for a run without any.
        budget: the budget of the run; `None` without a ceiling.
        resumed: whether an earlier process worked on this run.
        queued: number of failed rows that are retried.
        copy: the copy of the state as it was when the run was opened; `None` for a run without one.
        copier: writes the copy while the run works; `None` without one.
        written: the record of the output that this run wrote.
        outcome: how the work ended, for `close` to record.

    Raises:
        PromptError: the command names a column that the first rows do not have, or they have no prompt.
        ConfigurationError: the input cannot be read, the output cannot be written or exists already, or
            the run was started with another command.
        StoreError: another process works on the run, or its state cannot be used.
    """

    def __init__(self, llm: LLM, command: Command) -> None:
        self.llm = llm
        self.command = command
        self.outcome: Outcome = "stopped"
        self.repeats: Repeats | None = None
        self._spooled: Path | None = None
        self.copier: StateCopier | None = None
        hooks = llm.registry.hooks()
        self.output = output_path(command.output, hooks)
        given = None if command.state is None else followed(command.state)
        state = store_path(self.output) if given is None else given
        reads = list(command.reads)
        check_places(reads, self.output, files_named_in(llm), given)
        if command.spool is None:
            names = command.names or Names([command.source])
            for name in names:
                check_source(name)
            check_output(names, self.output)
        with ExitStack() as resources:
            # What is no file is read later, when nothing else can refuse the run.
            source = None if command.spool else self._open_source(resources)
            if source is not None:  # before anything is created: the input may not exist
                reads += places_of(source, command.source, hooks)
                check_places(reads, self.output, state=given)
                command.choice.check(source)
            check_streams(command.source, reads, self.output, given)
            if command.state_copy is None or SqliteStore.exists(state):
                self._check_replaceable(state)
            lock = take(state)
            resources.callback(lock.release)
            self.copy = state_copy_of(command, self.output, state, reads)
            # If the output cannot be written, the run must fail now, not when everything was paid for.
            columns = command.writing.columns()
            open_writer(command.output, hooks, None, columns, command.writing.format).abandon()
            if command.restart:
                check_restart(self.output, state)
            if source is None:
                self._spooled = self._save_input(resources)
                source = self._open_source(resources)
                command.choice.check(source)
            self.source = source
            self.reader = command.choice.rows(source)
            self.look = look_at_run(llm, self.reader, command)
            self.digest = source.digest()
            if command.restart:
                remove_state(state)
            self._restore(state, resources)
            self.store = SqliteStore(self.output, llm.model_name, lock, given)
            resources.callback(lambda: self.store.close(self.outcome))
            self.resumed = self._check_command()
            self.ledger = self._open_ledger(resources)
            self.store.set("offer", offer_of(llm))
            self.budget = self._open_budget(resources)
            self.written = WrittenOutput(self.store, self.output)
            self._check_written()
            self.store.start()
            self.queued = self.store.requeue(command.retry) if command.retry else 0
            self.store.set(*self._provenance().fact(self.store.session))
            self._begin_copying(resources)
            self._resources = resources.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _check_replaceable(self, state: Path) -> None:
        is_of_plugin = self.llm.registry.hooks().output_path(self.command.output) is not None
        check_replaceable(
            self.output, state, Path(self.command.output),
            restart=self.command.restart, is_of_plugin=is_of_plugin,
        )  # fmt: skip

    def _restore(self, state: Path, resources: ExitStack) -> None:
        """Use the copy of the state if it is newer, and copy the state again once the store is closed."""
        if self.copy is None:
            return
        if self.copy.restore(check_of(self._command_now(), self.source, self.command)) is None:
            self._check_replaceable(state)
        resources.callback(self._finish_copy)

    def _begin_copying(self, resources: ExitStack) -> None:
        """Copy the state from now on, and at once after a change of the offline batches."""
        if self.copy is None:
            return
        self.copier = begin_copying(self.copy, self.llm, self.store, resources.callback)
        if self.ledger is not None:
            self.ledger.on_change = self.copier.request

    def _finish_copy(self) -> None:
        problem = None if self.copier is None else self.copier.finish()
        if problem is not None:
            self.store.told.append(problem)

    def _provenance(self) -> Provenance:
        """Describe this session for the state."""
        names = None if self.command.spool is not None else self.command.names
        found = provenance_of(self.llm, self.command.given, names)
        return replace(found, retried=self.queued, known=self.store.known_rows)

    def _check_written(self) -> None:
        """Refuse to replace the file at the output's path, unless the run wrote it or `restart` is set."""
        restored = None if self.copy is None else self.copy.restored
        if self.command.restart or (restored is not None and restored.owns_output):
            self.written.adopt()
        elif self.command.retry or not self.is_complete:
            self.written.check()

    @property
    def is_complete(self) -> bool:
        """Whether every row is finished and the output written, in the way that the command says."""
        return (
            self.is_generated
            and self.outputs.get(self.written.key) == self.command.writing.as_json()
            and self.output.exists()
        )

    @property
    def is_generated(self) -> bool:
        """Whether every row is finished, and an output was written of them."""
        complete = self.store.get("complete")
        return (
            complete is not None
            and complete["limit"] == self.command.choice.limit
            and not self.store.has_queued(self.end)
        )

    @property
    def outputs(self) -> dict[str, Any]:
        """How each output was written that has all rows, by what tells it from the others."""
        complete = self.store.get("complete") or {}
        # A version that knew one output alone wrote it without options.
        outputs: dict[str, Any] = complete.get("outputs", {"": {}})
        return outputs

    @cached_property
    def end(self) -> int | None:
        """The index after that of the run's last row; `None` if no row of the input is beyond its limit."""
        return self.command.choice.end(self.reader)

    def close(self) -> None:
        """Record the outcome and release everything; what is finished stays in the store."""
        self._resources.close()

    def rows(self, stopping: Callable[[], bool]) -> Iterable[Row]:
        """The rows to generate for, which end once `stopping` returns true."""
        if not isinstance(self.reader, ChosenRows):
            return self.reader
        return self.reader.without(self.repeats).until(stopping)

    def open_rows(self) -> RowReader:
        """Open the rows to generate for, once more."""
        source = self._open()
        if not isinstance(self.reader, ChosenRows):
            return source
        return self.reader.without(self.repeats).over(source)

    def _open(self) -> RowReader:
        if self.command.spool is not None and self._spooled is not None:
            return self.command.spool.open(self._spooled)
        return self.command.open_input(self.llm.registry.hooks())

    def _open_source(self, resources: ExitStack) -> RowReader:
        return resources.enter_context(closing(self._open()))

    def _save_input(self, resources: ExitStack) -> Path:
        """Save an input that is not a file, because a run reads its input several times; return the path."""
        assert self.command.spool is not None
        folder = PartialFolder(spool_path(self.output))
        resources.callback(folder.remove)
        return self.command.spool.save(folder.path)

    def _command_now(self) -> dict[str, Any]:
        command = self.command
        return command_of(self.llm, command.arguments, command.num_generations, command.shaping, self.digest)

    def _check_command(self) -> bool:
        """Refuse another command than the one the run was started with; whether the run is resumed."""
        command, now = self.command, self._command_now()
        # Where nothing was generated, as after a wrong address, another command contradicts nothing.
        if self._is_blank:
            self.store.set("command", now)
            return False
        before = self.store.get("command")
        if before is None:
            raise unknown_command(self.store.path)
        changes = InputChanges(self.source, self.store.digests())
        check_unchanged(before, now, changes, extend=command.extend)
        if before.get("input") != now["input"]:  # which may have more rows
            self._check_batches_ended()
            self.store.set("complete", None)
            self.store.set("command", now)
        return True

    def _check_batches_ended(self) -> None:
        """Refuse another input while offline batches are running: their requests cannot be compared."""
        with self.store.reading() as connection:
            if not has_batches(connection):
                return
        with BatchLedger(self.store.path) as ledger:
            if any(job.state != "collected" for job in jobs_of(ledger)):
                raise ConfigurationError(
                    "rows of this run are in offline batches, and cannot be compared with those of the input",
                    hint="put the input back as it was, and collect the batches first",
                )

    @property
    def _is_blank(self) -> bool:
        """Whether no row was finished or submitted."""
        with self.store.reading() as connection:
            return self.store.is_blank and not (
                has_batches(connection) and connection.execute("SELECT 1 FROM batch_chunks").fetchone()
            )

    def _open_ledger(self, resources: ExitStack) -> BatchLedger | None:
        """Open the ledger if there are batches, and refuse to generate their rows online as well."""
        with self.store.reading() as connection:
            if not (self.command.uses_batches or has_batches(connection)):
                return None
        self.store.set("batches", True)
        ledger = resources.enter_context(BatchLedger(self.store.path))
        running = [job for job in jobs_of(ledger) if job.state != "collected"]
        if running and not self.command.uses_batches:
            rows = sum(len(job.rows) for job in running)
            raise ConfigurationError(
                f"{number_of(rows, 'row of this run', 'is/are', 'rows of this run')} in "
                f"{number_of(len(running), 'offline batch')}",
                hint="give --batch to collect them, or --finish-online to cancel them and generate the rest "
                "online",
            )
        return ledger

    def _open_budget(self, resources: ExitStack) -> Budget | None:
        if self.command.ceiling is None:
            return None
        unreported = self.store.get("unreported")
        with self.store.reading() as connection:
            budget = Budget(
                self.command.ceiling, connection, unreported,
                lambda unreported: self.store.set("unreported", unreported),
            )  # fmt: skip

        def abandon() -> None:
            with suppress(StoreError):  # the disk may be full
                budget.abandon()

        resources.callback(abandon)
        return budget
