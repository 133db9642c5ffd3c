"""What `stillhouse generate` prints: progress, how the run ended, and the exit status that says so."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from stillhouse._wording import number_of
from stillhouse.cli.generate.closing import print_peek, print_places, print_table
from stillhouse.cli.generate.pieces import print_stream
from stillhouse.cli.output import (
    is_read,
    print_error,
    print_facts,
    print_json,
    print_line,
    print_note,
    print_warning,
)
from stillhouse.cli.signals import INTERRUPTED, interrupts
from stillhouse.cli.standard import output
from stillhouse.cli.streams import Stream

if TYPE_CHECKING:
    from stillhouse._execution.stopping import Stop
    from stillhouse.jobs.launch.work import Ended
    from stillhouse.jobs.reporting.progress import Extent
    from stillhouse.jobs.runs.bulk import BulkRun
    from stillhouse.jobs.runs.command import Command
    from stillhouse.jobs.runs.looking import Look
    from stillhouse.jobs.runs.online import RunStatistics
    from stillhouse.jobs.runs.summary import Summary
    from stillhouse.llm import LLM
    from stillhouse.offline.chunks import Chunk

__all__ = ["generate_file", "generate_once", "print_estimate", "print_preview", "print_rows"]

COULD_NOT_START, FAILED_ROWS, UNFINISHED_BATCH = 1, 3, 4


def generate_once(llm: LLM, command: Command, prompt: str) -> int:
    """Generate for one text, print the generations, and return the exit status."""
    from stillhouse.jobs.formats.rows import Row
    from stillhouse.protocols import InputWithArguments

    item = command.formatter(Row(0, 1, {"prompt": prompt}))
    if isinstance(item, Exception):
        raise item
    assert not isinstance(item, InputWithArguments)  # there are none without rows
    from stillhouse.jobs.reporting.notes import noting
    from stillhouse.jobs.runs.loading import loaded

    is_streamed = command.num_generations == 1 and not llm.use_offline_batch_generation
    with noting(print_note, traceback=command.traceback, verbose=command.verbose), loaded(llm):
        if is_streamed:
            output = print_stream(llm, item, command.arguments)
            if output is None:
                return 0
        else:
            output = llm.generate_outputs([item], command.num_generations, **command.arguments)[0]
    reasons = output.get("finish_reasons") or []
    missing = 0
    for position, generation in enumerate(output["generations"]):
        if generation is None:
            missing += 1
            reason = reasons[position] if position < len(reasons) else None
            print_note(f"no text (finish reason: {reason or 'unknown'})")
        elif not is_streamed:
            print_line(generation)
    return FAILED_ROWS if missing else 0


def print_estimate(llm: LLM, command: Command) -> int:
    """Print how much a run has left to do, and return the exit status."""
    from stillhouse.jobs.launch.work import unusable_file
    from stillhouse.jobs.runs.estimate import estimate

    try:
        found = estimate(llm, command)
    except OSError as error:
        raise unusable_file(error) from None
    for line in found.look.lines():
        print_note(line)
    print_facts(found.lines())
    return 0


def print_preview(llm: LLM, command: Command, count: int, as_json: bool) -> int:
    """Print the first inputs as they would be sent, and return the exit status."""
    from stillhouse.jobs.launch.work import unusable_file
    from stillhouse.jobs.reporting.previews import preview_lines, preview_record
    from stillhouse.jobs.runs.looking import preview

    try:
        with preview(llm, command) as (look, rows):
            for line in look.lines():
                print_note(line)
            for row in islice(rows, count):
                input = command.formatter(row)
                if as_json:
                    print_json(preview_record(row, input), indent=None)
                    continue
                for line in preview_lines(row, input):
                    print_line(line)
    except OSError as error:
        raise unusable_file(error) from None
    return 0


def print_rows(llm: LLM, command: Command, *, quiet: bool = False) -> int:
    """Write the rows to standard output as they come, keep nothing, and return the exit status."""
    from stillhouse.jobs.launch.work import stream

    view = _View(command, quiet)
    try:
        ended = stream(llm, command, view, cast("BinaryIO", output().buffer))
    except KeyboardInterrupt:
        return INTERRUPTED
    view.tell()
    if not is_read():  # nobody wants to know more
        return FAILED_ROWS if ended.statistics.failures else 0
    view.tell_later()
    if ended.reasons is None:
        return INTERRUPTED
    if not quiet:
        print_table(ended.statistics, ended.reasons, None, command)
    if ended.problem is not None:
        print_error(ended.problem)
        return COULD_NOT_START
    return FAILED_ROWS if ended.reasons.failures.rows else 0


def generate_file(llm: LLM, command: Command, *, quiet: bool = False) -> int:
    """Start the run or resume it, report how it ended, and return the exit status."""
    from stillhouse.jobs.launch.work import work

    view = _View(command, quiet)
    try:
        ended = work(llm, command, view)
    except KeyboardInterrupt:
        return INTERRUPTED
    view.tell()
    if ended.summary is not None and ended.reasons is not None and not quiet:
        print_table(ended.statistics, ended.reasons, ended.summary, command)
        if ended.outcome == "complete":
            print_peek(ended.reasons, view.look, command)
            print_places(command, view.state)
    if ended.problem is not None:
        print_error(ended.problem)
    if ended.summary is not None and not (quiet and ended.outcome == "complete"):
        _print_end(ended, ended.summary, view)
    return _status(ended)


def _status(ended: Ended) -> int:
    if ended.outcome == "complete":
        return FAILED_ROWS if ended.summary is None or ended.summary.failures else 0
    return {"waiting": UNFINISHED_BATCH, "interrupted": INTERRUPTED}.get(ended.outcome, COULD_NOT_START)


def _print_end(ended: Ended, summary: Summary, view: _View) -> None:
    """Print how a run goes on that is not complete."""
    from stillhouse.jobs.runs.bulk import InputChangedError
    from stillhouse.jobs.spending.budget import BudgetError
    from stillhouse.jobs.store.database import LostError, TakenOverError

    if ended.nothing_to_do:
        print_note(f"{view.command.output} is complete: {number_of(summary.rows, 'row')}")
    elif ended.outcome == "waiting":
        _print_jobs(ended.jobs or [], summary.rows)
    elif ended.outcome != "complete":
        what = "the run stopped" if ended.problem else "interrupted"
        # What else it takes is said with the problem.
        needs_more = isinstance(ended.problem, (BudgetError, InputChangedError, TakenOverError))
        more = "" if needs_more else "; run the same command again to resume"
        if summary.queued:
            queued = number_of(summary.queued, "row")
            more += (
                f" and retry {queued}" if more else f"; {number_of(summary.queued, 'row', 'is/are')} retried"
            )
        if not isinstance(ended.problem, LostError):
            finished = number_of(summary.rows, "finished row", "is/are")
            print_note(f"{what}: {finished} saved in {view.state}{more}")


class _View:
    """Shows a run on standard error.

    Attributes:
        command: that of the run.
        state: the file of its state, once it is open.
        look: its first rows, once they were looked at.
    """

    def __init__(self, command: Command, quiet: bool = False) -> None:
        self.command, self._quiet = command, quiet
        self.look: Look | None = None
        self.state: Path | None = None
        self._told: list[str] = []
        self._later: list[str] = []
        self._notes: Callable[[], list[str]] = list
        self._noted: set[str] = set()

    def reading(self, notes: Callable[[], list[str]]) -> None:
        self._notes = notes
        self.tell()

    def looked(self, look: Look) -> None:
        # Whoever reads a few rows of what is printed, as `head` does, wants to know no more.
        self.look = look
        self._later = look.lines()
        if self.command.output != "-" or sys.stderr.isatty():
            self.tell_later()

    def tell_later(self) -> None:
        """Print what the first rows said, unless that was done."""
        while self._later:
            text = self._later.pop(0)
            if not self._quiet:
                print_note(text)

    def opened(self, bulk: BulkRun) -> None:
        self.state = bulk.store.path
        self._told = bulk.store.told
        self.tell()
        if self._quiet or not (bulk.resumed or bulk.restored or self.command.retry):
            return
        for text in [] if bulk.restored is None else bulk.restored.lines():
            print_note(text)
        summary = bulk.summary
        if self.command.retry or summary.queued:
            print_note(f"retrying {number_of(summary.queued, 'failed row')}")
        if bulk.resumed and not bulk.is_complete:
            print_note(f"resuming: {number_of(summary.rows, 'row')} finished")

    def tell(self) -> None:
        """Print what was noticed about damage to the state and about the input, once."""
        while self._told:
            print_warning(self._told.pop(0))
        for text in () if self._quiet else self._notes():
            if text not in self._noted:
                self._noted.add(text)
                print_note(text)

    @contextlib.contextmanager
    def working(self, statistics: RunStatistics, extent: Extent) -> Iterator[Stop]:
        from stillhouse.jobs.launch.signals import stoppable
        from stillhouse.jobs.reporting.notes import noting
        from stillhouse.jobs.reporting.progress import Tracker
        from stillhouse.jobs.reporting.showing import show_progress

        # Rows and a line that changes, on one terminal, would be a mess.
        is_printed = self._quiet or (self.command.output == "-" and output().isatty())
        shown = show_progress(sys.stderr, Tracker(statistics, extent))
        with (
            contextlib.nullcontext(print_note) if is_printed else shown as note,
            noting(note, traceback=self.command.traceback, verbose=self.command.verbose),
            stoppable(on_stop=_note_stopping) as stop,
        ):
            if interrupts().count:  # somebody swallowed the exception of an earlier one
                stop.request()
            out = output()
            if isinstance(out, Stream) and self.command.output == "-":
                out.on_gone = stop.request  # what nobody reads is not paid for
            yield stop


def _note_stopping() -> None:
    interrupts().count += 1
    with contextlib.suppress(Exception):  # the stream may be in the middle of a line
        print_note("stopping: waiting for the rows in flight; interrupt again to stop now")


def _print_jobs(jobs: Sequence[Chunk], finished: int) -> None:
    from stillhouse.jobs.reporting.tables import job_lines

    for line in job_lines(jobs):
        print_note(line)
    done = number_of(finished, "row", "is/are")
    print_note(f"{done} finished; run the same command again to collect the others")
