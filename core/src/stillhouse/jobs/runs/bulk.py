"""A bulk run from its command to its output: started, gone on with, finished."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from stillhouse.errors import ERROR_KINDS, ConfigurationError, near_matches
from stillhouse.jobs.formats.opening import open_reader, open_writer, output_path
from stillhouse.jobs.formats.partial import PartialFolder
from stillhouse.jobs.formats.rows import RowFormatter
from stillhouse.jobs.runs.assembly import assemble
from stillhouse.jobs.runs.offline import PASSING, OfflineRun, has_batches, jobs_of, made_of
from stillhouse.jobs.runs.online import RunStatistics, run
from stillhouse.jobs.spending.budget import Budget, Ceiling
from stillhouse.jobs.spending.prices import offer_of
from stillhouse.jobs.store.database import StoreError, read, store_path, translated
from stillhouse.jobs.store.fingerprint import check_unchanged, command_of, input_difference
from stillhouse.jobs.store.members import Members
from stillhouse.jobs.store.places import check_places, places_of, spool_path
from stillhouse.jobs.store.store import SqliteStore
from stillhouse.jobs.store.summary import Summary, summarize
from stillhouse.llm import LLM
from stillhouse.offline.chunks import Chunk
from stillhouse.offline.ledger import BatchLedger
from stillhouse.protocols import RowReader

__all__ = ["BulkRun", "Command", "opened_batches", "parse_kinds"]

# How often a run that waits for batches looks whether it shall stop.
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Command:
    """What a run is asked for.

    Attributes:
        source: the input: a file, `-` for standard input, or what a plugin opens.
        output: the output: a file, or what a plugin opens.
        formatter: makes a row's input.
        formatting: what the formatter was made from, as it is told in a difference.
        num_generations: how many generations of each row.
        arguments: generation parameters.
        limit: how many rows belong to the run; `None` means all. It may be another one next time.
        restart: forget an earlier run, and replace the output.
        retry: kinds of errors whose rows are generated again.
        offline: generate through the provider's offline batches.
        wait: ask every so many seconds until the batches are done; `None` asks once.
        finish_online: cancel the batches that go on, and generate online what they did not.
        ceiling: what the run may spend; it may be another one next time.
        reads: the files besides the source that were read for it, such as settings.
    """

    source: str
    output: str
    formatter: RowFormatter
    formatting: dict[str, Any] = field(default_factory=dict)
    num_generations: int = 1
    arguments: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    restart: bool = False
    retry: Sequence[str] = ()
    offline: bool = False
    wait: float | None = None
    finish_online: bool = False
    ceiling: Ceiling | None = None
    reads: Sequence[Path] = ()


def parse_kinds(text: str) -> list[str]:
    """The kinds of errors in a list such as `rate_limit,timeout`; `all` means every one.

    Raises:
        ConfigurationError: there is no such kind.
    """
    kinds = [item.strip() for item in text.split(",") if item.strip()]
    if kinds == ["all"]:
        return list(ERROR_KINDS)
    for kind in kinds:
        if kind not in ERROR_KINDS:
            raise ConfigurationError(
                f"there is no kind of error {kind!r}", hint=near_matches(kind, [*ERROR_KINDS, "all"])
            )
    return kinds


class BulkRun:
    """One process's work on a run; a context manager, which keeps what there is.

    Args:
        llm: the LLM; `generate` and `finish` want it loaded.
        command: what to do.

    Attributes:
        resumed: whether an earlier process worked on this run.
        queued: how many failed rows are generated again.

    Raises:
        ConfigurationError: the input cannot be read, the output cannot be written or is there
            already, or the run was started with another command.
        StoreError: another process works on it, or its state cannot be used.
    """

    def __init__(self, llm: LLM, command: Command) -> None:
        self._llm = llm
        self._command = command
        self._ledger: BatchLedger | None = None
        self._source = command.source
        self._outcome = "stopped"
        self._reader: RowReader | None = None
        self._spool: PartialFolder | None = None
        self._budget: Budget | None = None
        self._output = output = output_path(command.output, llm.registry.hooks())
        check_places(command.reads, output)
        if command.source != "-":  # first of all: for an input that is not there, nothing is made
            self._reader = open_reader(command.source, llm.registry.hooks())
        try:
            self._check_places()
            self.store = SqliteStore(output, llm.model_name, command.restart, self._prepare)
        except BaseException:
            self._release()
            raise
        try:
            with translated(self.store.path):
                self._open()
        except BaseException:
            self.close()
            raise

    def _check_places(self) -> None:
        """Refuse to replace what the run reads, or what is not an output of this run."""
        output = self._output
        if self._reader is not None:
            hooks = self._llm.registry.hooks()
            check_places(places_of(self._reader, self._command.source, hooks), output)
        if output.exists() and not (self._command.restart or SqliteStore.exists(output)):
            raise ConfigurationError(
                f"{output} is there already, and no state of a run beside it",
                hint="give another output, or replace it with --restart",
            )

    def _prepare(self) -> None:
        """What must be known before an earlier run is forgotten, and wants the run to itself."""
        command, hooks = self._command, self._llm.registry.hooks()
        # That the output cannot be written must not be found out when everything was paid for.
        open_writer(command.output, hooks).abandon()
        if command.restart:
            _check_no_batch_goes_on(self._output)
        if command.source == "-":
            self._spool = PartialFolder(spool_path(self._output))
            spooled = self._spool.path / "rows.jsonl"
            with spooled.open("xb") as stream:
                shutil.copyfileobj(sys.stdin.buffer, stream, 1 << 20)
            self._source = str(spooled)
            self._reader = open_reader(self._source, hooks)
        assert self._reader is not None
        self._digest = self._reader.digest()

    def _open(self) -> None:
        command, reader = self._command, self._reader
        assert reader is not None
        now = command_of(
            self._llm, command.arguments, command.num_generations, command.formatting, self._digest
        )
        before = self.store.get("command")
        # Where nothing was generated, as after a wrong address, another command contradicts nothing.
        self.resumed = before is not None and not self._is_blank
        if not self.resumed:
            self.store.set("command", now)
        else:
            check_unchanged(before, now, input_difference(reader, self.store.digests()))
        self._open_ledger()
        self.store.set("offer", offer_of(self._llm))
        if command.ceiling is not None:
            self._budget = Budget(
                command.ceiling, self.store.connection, self.store.get("unreported"),
                lambda unreported: self.store.set("unreported", unreported),
            )  # fmt: skip
        self.store.start()
        self.queued = self.store.requeue(command.retry) if command.retry else 0

    def _open_ledger(self) -> None:
        """Refuse to generate online what the provider generates already."""
        command = self._command
        if not (command.offline or command.finish_online or has_batches(self.store.connection)):
            return
        self._ledger = BatchLedger(self.store.path)
        if command.offline or command.finish_online:
            return
        going = [job for job in jobs_of(self._ledger) if job.state != "collected"]
        if going:
            rows = sum(len(job.rows) for job in going)
            raise ConfigurationError(
                f"{rows:,} rows of this run are in {len(going)} offline batches",
                hint="give --batch to collect them, or --finish-online to cancel them and generate the rest "
                "online",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def _is_blank(self) -> bool:
        """Whether nothing was finished or submitted."""
        connection = self.store.connection
        return (
            connection.execute("SELECT 1 FROM rows").fetchone() is None
            and self.store.get("complete") is None
            and not (has_batches(connection) and connection.execute("SELECT 1 FROM batch_chunks").fetchone())
        )

    @property
    def is_complete(self) -> bool:
        """Whether every row is finished and the output is there."""
        complete = self.store.get("complete")
        return (
            complete is not None
            and complete["limit"] == self._command.limit
            and not self.store.has_queued(self._command.limit)
            and self._output.exists()
        )

    @property
    def share_read(self) -> float | None:
        """How much of the input was read, from 0 to 1; `None` where its size is not known."""
        return None if self._reader is None else self._reader.share_read

    @property
    def summary(self) -> Summary:
        """What the run has so far of the rows that belong to it, earlier processes included."""
        with translated(self.store.path):
            return summarize(self.store.connection, self._command.limit)

    def work(self, statistics: RunStatistics, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Generate for every row that is not finished, and write the output; whether it is complete.

        Args:
            statistics: counted up.
            stopping: once it is true, no row is started any more, and the work ends when those in
                flight have.

        Raises:
            GenerationError: an error that every further row would meet.
            ConfigurationError: the input changed while the run went on, or the budget is used up.
            StoreError, OSError: the state, the input or the output cannot be used any more.
        """
        assert self._reader is not None
        command, again = self._command, False
        statistics.budget = self._budget
        self.store.set("complete", None)
        while True:
            if self._ledger is not None and not self._work_offline(statistics, stopping):
                self._outcome = "interrupted" if stopping() else "waiting"
                return False
            with self._keeping_members():
                run(
                    self._llm, self._reader, command.formatter, self.store,
                    num_generations=command.num_generations, arguments=command.arguments,
                    limit=command.limit, statistics=statistics, stopping=stopping,
                )  # fmt: skip
            if stopping():
                self._outcome = "interrupted"
                return False
            writer = open_writer(command.output, self._llm.registry.hooks(), self._reader.schema)
            wrong = assemble(self._reader, self.store.stored(), writer, command.limit)
            if not wrong:
                break
            if again or self._reader.digest() != self._digest:
                raise ConfigurationError(
                    f"the input changed while the run went on: {len(wrong):,} rows are not those that it "
                    "generated for",
                    hint="put it back as it was and make the same command again, or begin with --restart",
                )
            # It was another one for a while, and is again what it was: those rows are not finished.
            self.store.forget(wrong)
            again = True
        self.store.set("complete", {"limit": command.limit})
        self._outcome = "complete"
        return True

    @contextlib.contextmanager
    def _keeping_members(self) -> Iterator[None]:
        """What members of a composite give is kept until their row is finished."""
        if not self._llm.is_composite:
            yield
            return
        members = Members(self.store.path, self._llm)
        with members.installed():
            self.store.members = members
            try:
                yield
            finally:
                self.store.members = None

    def _work_offline(self, statistics: RunStatistics, stopping: Callable[[], bool]) -> bool:
        """Have the batches done; whether nothing is at the provider any more."""
        command, ledger = self._command, self._ledger
        assert ledger is not None
        if not (command.offline or command.finish_online):
            return True
        hooks = self._llm.registry.hooks()
        while not stopping():
            offline = OfflineRun(
                self._llm, ledger, self.store, lambda: open_reader(self._source, hooks), command.formatter,
                num_generations=command.num_generations, arguments=command.arguments, limit=command.limit,
            )  # fmt: skip
            if command.finish_online:
                if offline.withdraw(statistics):
                    self.store.requeue(PASSING)
                    return True
            elif offline.advance(statistics):
                return True
            if command.wait is None:
                return False
            ends = time.monotonic() + command.wait
            while not stopping() and time.monotonic() < ends:
                time.sleep(min(_LOOK_SECONDS, command.wait))
        return False

    @property
    def is_waiting(self) -> bool:
        """Whether the work ended because batches go on."""
        return self._outcome == "waiting"

    @property
    def jobs(self) -> list[Chunk]:
        """The offline batches of the run, as they were last heard of."""
        return [] if self._ledger is None else jobs_of(self._ledger)

    def interrupted(self) -> None:
        """Note that somebody stopped the work."""
        self._outcome = "interrupted"

    def close(self) -> None:
        """End the work of this process; what there is is kept."""
        try:
            if self._budget is not None:
                with contextlib.suppress(StoreError):  # the disk may be full
                    self._budget.abandon()
            self._release()
        finally:
            self.store.close(self._outcome)

    def _release(self) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._ledger is not None:
            self._ledger.close()
        if self._spool is not None:
            self._spool.remove()


def _check_no_batch_goes_on(output: Path) -> None:
    """Refuse to forget jobs that the provider works on, which nobody could collect or cancel any more."""
    going: list[Chunk] = []
    path = store_path(output)
    with contextlib.suppress(StoreError):  # of a state that is of no use, nothing is known
        with contextlib.closing(read(path)) as connection, translated(path):
            there = has_batches(connection)
        if there:
            with BatchLedger(path) as ledger, translated(path):
                going = [job for job in jobs_of(ledger) if job.state in ("uploaded", "created")]
    if going:
        raise ConfigurationError(
            f"{len(going)} offline batches of the run go on, and would be paid for in vain",
            hint=f"cancel them with stillhouse batches {output} --cancel",
        )


@contextlib.contextmanager
def opened_batches(output: Path) -> Iterator[list[Any]]:
    """The offline batches of the run at a path that nobody works on, with the LLM that it was started with.

    Secrets come from the environment, for the run does not keep them.

    Raises:
        StoreError: somebody works on the run, or its state cannot be used.
        ConfigurationError, UnknownLLMError, PluginError: the LLM cannot be made again.
    """
    store = SqliteStore(output, "")
    try:
        command = store.get("command")
        if command is None:
            yield []
            return
        llm = LLM.from_dict(command["llm"])
        with llm, BatchLedger(store.path) as ledger:
            yield [
                llm.open_offline_batch(
                    ledger, key, command["num_generations"] - made_of(key), command["parameters"]
                )
                for key in ledger.run_keys()
            ]
    finally:
        store.close("stopped")
