"""`work` and `stream`: the work on a command until it ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

from stillhouse._execution.stopping import Stop
from stillhouse.errors import ConfigurationError, StillhouseError
from stillhouse.jobs.executors.choosing import Executing, executing_of
from stillhouse.jobs.formats.writers import JsonlWriter
from stillhouse.jobs.launch.following import Follower, followed
from stillhouse.jobs.reporting.progress import Extent
from stillhouse.jobs.runs.announcing import announced, run_info
from stillhouse.jobs.runs.bulk import BulkRun, open_bulk_run
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.custom_ids import check_custom_ids
from stillhouse.jobs.runs.hopeless import FailuresError, FailureWatch
from stillhouse.jobs.runs.inputs import input_of
from stillhouse.jobs.runs.loading import collecting_less
from stillhouse.jobs.runs.looking import Look, check_columns, look
from stillhouse.jobs.runs.online import RunStatistics, run
from stillhouse.jobs.runs.reach import number_of_rows, share_read
from stillhouse.jobs.runs.reasons import Reasons
from stillhouse.jobs.runs.refusals import check_run
from stillhouse.jobs.runs.summary import Summary
from stillhouse.jobs.selection.choosing import ChosenRows
from stillhouse.jobs.sources.opening import notes_of
from stillhouse.jobs.spending.budget import Budget
from stillhouse.jobs.spending.prices import find_prices, offer_of
from stillhouse.jobs.store.places import places_of
from stillhouse.jobs.store.stream import StreamStore
from stillhouse.jobs.store.streams import check_streams
from stillhouse.llm import LLM
from stillhouse.offline.chunks import Chunk
from stillhouse.protocols import Executor, Row, RowReader

__all__ = ["Ended", "View", "stream", "unusable_file", "work"]


class View(Protocol):
    """Whoever looks at a run while it works."""

    def looked(self, look: Look) -> None:
        """The first rows were looked at; nothing was generated yet."""

    def opened(self, bulk: BulkRun) -> None:
        """The run is open; nothing was generated yet."""

    def reading(self, notes: Callable[[], list[str]]) -> None:
        """The input is open; what is unusual about it is told now, and in the end if there is more."""

    def working(self, statistics: RunStatistics, extent: Extent) -> AbstractContextManager[Stop]:
        """Show the statistics while the run works; gives the request to stop it.

        Args:
            statistics: what the run updates.
            extent: how much there is to do.
        """


@dataclass
class Ended:
    """How the work on a run ended.

    Attributes:
        outcome: `complete`; `waiting` for offline batches; `interrupted`; `stopped` by a problem.
        problem: why it was stopped.
        statistics: what this work did.
        summary: the state of the whole run; `None` where its state cannot be read any more.
        reasons: why rows ended, where this work completed the run or failed rows stopped it.
        jobs: the offline batches, in the state of the last poll.
        nothing_to_do: whether the run was complete before.
    """

    outcome: Literal["complete", "waiting", "interrupted", "stopped"]
    statistics: RunStatistics
    problem: StillhouseError | None = None
    summary: Summary | None = None
    reasons: Reasons | None = None
    jobs: list[Chunk] | None = None
    nothing_to_do: bool = False


def work(llm: LLM, command: Command, view: View) -> Ended:
    """Start a run or resume it, and work on it until it ends.

    Raises:
        ConfigurationError: the run cannot be opened; see `OpenRun`.
        StoreError: another process works on it, or its state cannot be used.
        KeyboardInterrupt: the work was interrupted before the run was open.
    """
    with contextlib.ExitStack() as resources:
        follower = resources.enter_context(followed(llm, command))
        resources.enter_context(_online(llm))
        executing = executing_of(llm, command)  # refuses what cannot be, before anything is written
        bulk = resources.enter_context(_open(llm, command))
        follower.copied = lambda: bulk.copied
        view.reading(lambda: notes_of(bulk.source, command.source))
        if not bulk.is_complete:
            view.looked(bulk.look)
        view.opened(bulk)
        statistics = RunStatistics(prices=find_prices(offer_of(llm)))
        if bulk.is_complete:
            return Ended("complete", statistics, summary=bulk.summary, nothing_to_do=True)
        ended = _work(llm, bulk, command, statistics, view, executing, follower)
        follower.outcome = ended.outcome
        with contextlib.suppress(StillhouseError):  # it may be the state itself that cannot be used
            is_full = isinstance(ended.problem, FailuresError)
            ended.summary, ended.jobs = bulk.explained if is_full else bulk.summary, bulk.jobs
            if is_full:
                ended.reasons = ended.summary.reasons
        return ended


def _given(executor: Executor) -> Executing:
    return lambda: contextlib.nullcontext(executor)


def _open(llm: LLM, command: Command) -> BulkRun:
    try:
        return open_bulk_run(llm, command)
    except OSError as error:
        raise unusable_file(error) from None


def _work(
    llm: LLM,
    bulk: BulkRun,
    command: Command,
    statistics: RunStatistics,
    view: View,
    executing: Executing,
    follower: Follower,
) -> Ended:
    begun = contextlib.nullcontext(None) if bulk.is_generated else executing()
    try:
        with (
            # An engine on this machine takes minutes to load.
            begun as executor,
            _watched(llm, command, statistics, bulk.rows, view, follower) as stopping,
        ):
            again = executing if executor is None else _given(executor)
            if bulk.work(statistics, stopping, again):
                return Ended("complete", statistics, reasons=bulk.reasons)
            if bulk.is_waiting and not stopping():
                return Ended("waiting", statistics)
            return Ended("interrupted", statistics)
    except KeyboardInterrupt:
        bulk.on_interrupt()
        return Ended("interrupted", statistics)
    except StillhouseError as error:
        return Ended("stopped", statistics, error)
    except OSError as error:
        return Ended("stopped", statistics, unusable_file(error))


def stream(llm: LLM, command: Command, view: View, out: BinaryIO) -> Ended:
    """Write the rows to standard output as they come, in their order, and keep nothing.

    Args:
        llm: the LLM.
        command: whose output is `-`.
        view: looks at the work.
        out: the standard output.

    Raises:
        StillhouseError: as `work`, and whatever ends it.
        KeyboardInterrupt: the work was interrupted at once.
    """
    with followed(llm, command) as follower:
        ended = _stream(llm, command, view, out, follower)
        follower.outcome = ended.outcome
        return ended


def _stream(llm: LLM, command: Command, view: View, out: BinaryIO, follower: Follower) -> Ended:
    hooks, reasons = llm.registry.hooks(), Reasons()
    statistics = RunStatistics(
        prices=find_prices(offer_of(llm)),
        budget=Budget(command.ceiling) if command.ceiling else None,
        watch=FailureWatch(command.max_failures),
    )
    try:
        with contextlib.ExitStack() as resources:
            resources.enter_context(_online(llm))
            executing = executing_of(llm, command)
            reader = resources.enter_context(input_of(llm, command))
            view.reading(lambda: notes_of(reader, command.source))
            check_streams(command.source, [*command.reads, *places_of(reader, command.source, hooks)], None)
            if command.source != "-":  # which cannot be read twice
                command.choice.check(reader)
            rows, ending = command.choice.rows(reader), list[Callable[[], bool]]()
            if isinstance(rows, ChosenRows):
                rows = rows.until(lambda: bool(ending) and ending[0]())
            # Whoever writes to standard input may be slow.
            found = look(llm, rows, command.formatter, few=command.source == "-")
            read: Iterable[Row] = found.all_rows
            if command.formatter.is_batch and command.source != "-":
                check_custom_ids(rows)
                read = rows  # from the first one on: what was left of them is read now
            check_columns(command, rows, found)
            view.looked(found)
            executor = resources.enter_context(executing())
            check_run(llm, command.formatter, executor)
            writer, columns = JsonlWriter(command.output, out), command.writing.columns()
            store = StreamStore(writer, llm.model_name, columns, reasons.add)
            info = run_info(llm, command.source, command.output, rows)
            with (
                _watched(llm, command, statistics, rows, view, follower) as stopping,
                announced(llm, info, statistics, lambda: "interrupted" if stopping() else "complete"),
            ):
                ending.append(stopping)
                try:
                    run(
                        llm, read, command.formatter, store,
                        num_generations=command.num_generations, arguments=command.arguments,
                        statistics=statistics, stopping=stopping, executor=executor,
                    )  # fmt: skip
                except FailuresError:
                    writer.finish()
                    raise
                writer.finish()
                columns.tell()
                if stopping():
                    return Ended("interrupted", statistics)
    except FailuresError as problem:
        return Ended("stopped", statistics, problem, reasons=reasons)
    except OSError as error:
        raise unusable_file(error) from None
    return Ended("complete", statistics, reasons=reasons)


@contextlib.contextmanager
def _online(llm: LLM) -> Iterator[None]:
    """Let the LLM generate online: a run submits the batches itself."""
    llm.use_offline_batch_generation, before = False, llm.use_offline_batch_generation
    try:
        yield
    finally:
        llm.use_offline_batch_generation = before


@contextlib.contextmanager
def _watched(
    llm: LLM, command: Command, statistics: RunStatistics, rows: RowReader, view: View, follower: Follower
) -> Iterator[Stop]:
    window = getattr(llm, "max_concurrency", None) or llm.preferred_batch_size
    slots = llm.engine_slots
    extent = Extent(
        lambda: share_read(command.choice, rows, statistics),
        lambda: number_of_rows(rows),
        window,
        None if slots is None else max(1, slots * (command.workers or 1) // command.num_generations),
    )
    statistics.started = time.monotonic()
    with (
        collecting_less(),
        view.working(statistics, extent) as stopping,
        follower.working(statistics, extent),
    ):
        yield stopping


def unusable_file(error: OSError) -> ConfigurationError:
    """Return what an error of the system says to a person."""
    where = f"{error.filename}: " if error.filename else ""
    return ConfigurationError(
        f"{where}{error.strerror or error}", hint="make room, or check the file, and start again"
    )
