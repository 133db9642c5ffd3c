"""`BulkRun`: a bulk run from command to output: start, resume, finish."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Self

from stillhouse._wording import number_of
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.runs.announcing import announced, run_info
from stillhouse.jobs.runs.batch_work import finish_batches
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.hopeless import FailuresError, FailureWatch
from stillhouse.jobs.runs.offline import COMMIT_ROWS, jobs_of
from stillhouse.jobs.runs.online import RunStatistics, run
from stillhouse.jobs.runs.open_run import OpenRun
from stillhouse.jobs.runs.output import set_complete, write_output
from stillhouse.jobs.runs.reach import REACH, recorded_total
from stillhouse.jobs.runs.reasons import Endings
from stillhouse.jobs.runs.refusals import check_run
from stillhouse.jobs.runs.summary import Summary, explained, keep_endings, summarize
from stillhouse.jobs.runs.waits import recorded_waits, seconds_waited, waits_key
from stillhouse.jobs.selection.repeats import find_repeats
from stillhouse.jobs.store.database import DamagedError
from stillhouse.jobs.store.fingerprint import InputChanges
from stillhouse.jobs.store.members import MemberCache
from stillhouse.jobs.store.store import SqliteStore
from stillhouse.llm import LLM
from stillhouse.offline.chunks import Chunk
from stillhouse.protocols import Executor, RowReader

__all__ = ["BulkRun", "InputChangedError", "open_bulk_run"]


class InputChangedError(ConfigurationError):
    """The input changed during the run, so that its output cannot be written."""


def open_bulk_run(llm: LLM, command: Command) -> BulkRun:
    """Open the run of a command; `OpenRun` lists the errors.

    Args:
        llm: the LLM; `BulkRun.work` needs it loaded.
        command: what the run is asked to do.
    """
    return BulkRun(OpenRun(llm, command))


class BulkRun:
    """One process's work on a run; a context manager that releases the run. Finished rows are kept.

    Args:
        open_run: the run, held by this process.

    Attributes:
        resumed: whether an earlier process worked on this run.
        queued: number of failed rows that are retried.
        restored: what was restored from the copy of the state; `None` if nothing was.
        look: the findings about the prompt in the first rows of the input.
        store: the rows.
        source: reads the input.
    """

    def __init__(self, open_run: OpenRun) -> None:
        self._run = open_run
        self.resumed = open_run.resumed
        self.queued = open_run.queued
        self.restored = None if open_run.copy is None else open_run.copy.restored
        self.look = open_run.look
        self.store: SqliteStore = open_run.store
        self.source: RowReader = open_run.source

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop working on the run; everything finished so far is kept."""
        self._run.close()

    @property
    def is_complete(self) -> bool:
        """Whether every row is finished and the output is written."""
        return self._run.is_complete

    @property
    def is_generated(self) -> bool:
        """Whether every row is finished, so that only an output has to be written."""
        return self._run.is_generated

    @property
    def rows(self) -> RowReader:
        """The reader of the input's rows that belong to the run."""
        return self._run.reader

    @property
    def summary(self) -> Summary:
        """The state of the rows that belong to the run, including those of earlier processes."""
        with self.store.reading() as connection:
            return summarize(connection, self._run.end)

    @property
    def explained(self) -> Summary:
        """`summary` with the reasons why generations ended and rows failed; it reads every row."""
        end = self._run.end
        with self.store.reading() as connection:
            return explained(summarize(connection, end), connection, end)

    @property
    def is_waiting(self) -> bool:
        """Whether the work ended because batches are not done."""
        return self._run.outcome == "waiting"

    @property
    def copied(self) -> float | None:
        """When the state was last copied, in seconds since 1970; `None` without a copy."""
        return None if self._run.copier is None else self._run.copier.taken

    @property
    def jobs(self) -> list[Chunk]:
        """The offline batches of the run, in the state of the last poll."""
        return [] if self._run.ledger is None else jobs_of(self._run.ledger)

    def on_interrupt(self) -> None:
        """Record that the work was interrupted."""
        self._run.outcome = "interrupted"

    def work(
        self,
        statistics: RunStatistics,
        stopping: Callable[[], bool] = lambda: False,
        executing: Callable[[], contextlib.AbstractContextManager[Executor]] | None = None,
    ) -> bool:
        """Generate for every row that is not finished, and write the output.

        Args:
            statistics: updated while the run works.
            stopping: once it returns true, no further row is started, and the work ends when the rows in
                flight are finished.
            executing: gives what generates, where there is something to generate: by default the LLM, which
                is loaded then.

        Returns:
            Whether the run is complete.

        Raises:
            GenerationError: an error that every further row would cause.
            ConfigurationError: the LLM would refuse every row, or the budget is used up.
            InputChangedError: the input changed while the run worked.
            FailuresError: the run is hopeless, or too many rows failed. The rows that made it hopeless are
                queued: the next process generates them again.
            StoreError, OSError: the state, the input or the output cannot be used any more.
        """
        opened, command = self._run, self._run.command
        info = run_info(
            opened.llm,
            command.source,
            command.output,
            opened.reader,
            resumed=self.resumed,
        )
        with announced(opened.llm, info, statistics, lambda: opened.outcome):
            try:
                if self.is_generated and self._write_again():
                    return True
                with contextlib.nullcontext(opened.llm) if executing is None else executing() as executor:
                    return self._work(statistics, stopping, executor)
            except FailuresError as error:
                self.store.requeue(error.kinds, of_session=True)
                raise

    def _work(self, statistics: RunStatistics, stopping: Callable[[], bool], executor: Executor) -> bool:
        """Do the work, after hooks were notified."""
        opened = self._run
        if all(job.state == "collected" for job in self.jobs):  # what was paid is collected in any case
            check_run(opened.llm, opened.command.formatter, executor)
        statistics.budget = opened.budget
        statistics.watch = FailureWatch(opened.command.max_failures)
        statistics.endings = Endings() if self.resumed else None
        if opened.command.in_order:
            self.store.set("in_order", True)
        self.store.set("complete", None)
        # For those who look at the run from another process.
        self.store.record(REACH, lambda: recorded_total(opened.command.choice, opened.reader, statistics))
        if opened.command.num_generations == 1:  # else the calls of a row wait side by side
            before = seconds_waited(opened.llm)
            key = waits_key(self.store.session)
            self.store.record(key, lambda: recorded_waits(opened.llm, before, statistics))
        self._find_repeats(statistics, stopping)
        retried = False
        while True:
            if not finish_batches(opened, statistics, stopping):
                opened.outcome = "interrupted" if stopping() else "waiting"
                return False
            self._generate(statistics, stopping, executor)
            self.store.record_now()
            if stopping():
                opened.outcome = "interrupted"
                return False
            self._check_input()
            self._give_repeats(statistics)
            self.store.give_up_reserve()  # the output may need the room
            wrong = self._write_output()
            if not wrong:
                break
            if retried:
                self._check_input()
                raise DamagedError(
                    f"{number_of(len(wrong), 'row')} in {self.store.path} cannot be read as written",
                    hint="make the same command again: it keeps every row that can be read",
                )
            self._forget(wrong)
            retried = True
        keep_endings(self.store, self.reasons.endings)
        set_complete(opened, {})
        return True

    def _write_again(self) -> bool:
        """Write an output again, or another one; return whether no row has changed since."""
        outputs = self._run.outputs
        outputs.pop(self._run.written.key, None)
        self._check_input()
        self.store.give_up_reserve()
        wrong = self._write_output()
        if wrong:
            self._forget(wrong)
            return False
        set_complete(self._run, outputs)
        return True

    def _forget(self, wrong: list[int]) -> None:
        """Treat rows as unfinished if they differ from their state.

        The input was changed and restored, or the state was damaged in the meantime.
        """
        self._check_input()
        self.store.forget(wrong)
        self.store.told.append(f"{number_of(len(wrong), 'row')} did not read as written: generated again")

    def _check_input(self) -> None:
        """Refuse to write the output of an input that changed since the run was opened."""
        opened = self._run
        if opened.reader.digest() != opened.digest:
            changes = InputChanges(opened.source, self.store.digests())
            ways = ["restore the input, then repeat the command to resume the run"]
            if not changes.are_in_rows:
                ways.append("if rows were added at its end, use --extend to generate them")
            ways.append("or start over with the input as it is now, with --restart or another output")
            raise InputChangedError(
                f"the input changed during the run: {changes.told.removeprefix('input: ')}",
                hint="; ".join(ways),
            )

    def _find_repeats(self, statistics: RunStatistics, stopping: Callable[[], bool]) -> None:
        """Find the rows with the same request as an earlier row, if such rows are generated only once."""
        opened = self._run
        if opened.command.choice.dedupe:
            opened.repeats = find_repeats(opened.rows(stopping), opened.command.formatter, stopping)
            statistics.repeats = len(opened.repeats)

    def _give_repeats(self, statistics: RunStatistics) -> None:
        """Give these rows the results of the finished rows that they repeat."""
        for number, repeat in enumerate(self._run.repeats or (), 1):
            statistics.repeat(self.store.repeat(repeat))
            if number % COMMIT_ROWS == 0:
                self.store.commit()
        self.store.commit()

    def _generate(self, statistics: RunStatistics, stopping: Callable[[], bool], executor: Executor) -> None:
        command = self._run.command
        with self._caching_members():
            run(
                self._run.llm, self._run.rows(stopping), command.formatter, self.store,
                num_generations=command.num_generations, arguments=command.arguments,
                in_order=command.in_order, statistics=statistics, stopping=stopping, executor=executor,
            )  # fmt: skip

    @contextlib.contextmanager
    def _caching_members(self) -> Iterator[None]:
        """Keep the outputs of a composite's members until their row is finished."""
        if not self._run.llm.is_composite:
            yield
            return
        members = MemberCache(self.store.path, self._run.llm)
        with members.installed():
            self.store.members = members
            try:
                yield
            finally:
                self.store.members = None

    def _write_output(self) -> list[int]:
        """Write the output, or return the rows of the input that changed since they were generated for."""
        wrong, self.reasons = write_output(self._run)
        return wrong
