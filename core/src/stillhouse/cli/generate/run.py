"""The work of `stillhouse generate`: run, show progress, stop on a signal, and report how it ended."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stillhouse.cli.output import print_error, print_facts
from stillhouse.errors import ConfigurationError, StillhouseError

if TYPE_CHECKING:
    from stillhouse.jobs.formats.rows import RowFormatter
    from stillhouse.jobs.runs.command import Command
    from stillhouse.jobs.runs.online import RunStatistics
    from stillhouse.jobs.runs.reasons import Reasons
    from stillhouse.llm import LLM
    from stillhouse.offline.chunks import Chunk

__all__ = ["generate_file", "generate_once", "print_estimate", "print_rows"]

COULD_NOT_START, FAILED_ROWS, UNFINISHED_BATCH, INTERRUPTED = 1, 3, 4, 130

# SIGBREAK exists on Windows only, SIGHUP everywhere else.
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")


COLLECT_EVERY = 50_000
"""How many objects more than before make Python look for cycles."""


def generate_once(
    llm: LLM, formatter: RowFormatter, prompt: str, num_generations: int, arguments: dict[str, Any]
) -> int:
    """Generate for one text, print the generations, and return the exit status."""
    from stillhouse.jobs.formats.rows import Row

    item = formatter(Row(0, 1, {"prompt": prompt}))
    if isinstance(item, Exception):
        raise item
    with llm:
        output = llm.generate_outputs([item], num_generations, **arguments)[0]
    reasons = output.get("finish_reasons") or []
    missing = 0
    for position, generation in enumerate(output["generations"]):
        if generation is None:
            missing += 1
            reason = reasons[position] if position < len(reasons) else None
            print(f"no text (finish reason: {reason or 'unknown'})", file=sys.stderr)
        else:
            print(generation)
    return FAILED_ROWS if missing else 0


def print_estimate(llm: LLM, command: Command) -> int:
    """Print how much a run has left to do, and return the exit status."""
    from stillhouse.jobs.runs.estimate import estimate

    try:
        found = estimate(llm, command)
    except OSError as error:
        raise _as_configuration_error(error) from None
    print_facts(found.lines(), sys.stdout)
    return 0


def print_rows(llm: LLM, command: Command) -> int:
    """Write the rows to standard output as they come, keep nothing, and return the exit status."""
    from stillhouse.jobs.formats.opening import open_reader, open_writer
    from stillhouse.jobs.reporting.progress import summary_lines
    from stillhouse.jobs.runs.online import RunStatistics, run
    from stillhouse.jobs.runs.reasons import Reasons
    from stillhouse.jobs.runs.refusals import check_run
    from stillhouse.jobs.spending.budget import Budget
    from stillhouse.jobs.spending.prices import find_prices, offer_of
    from stillhouse.jobs.store.stream import StreamStore

    hooks, reasons = llm.registry.hooks(), Reasons()
    statistics = RunStatistics(
        prices=find_prices(offer_of(llm)), budget=Budget(command.ceiling) if command.ceiling else None
    )
    try:
        with contextlib.closing(open_reader(command.source, hooks)) as reader, llm:
            check_run(llm, command.formatter)
            writer = open_writer(command.output, hooks)
            store = StreamStore(writer, llm.model_name, reasons.add)
            with _progress(llm, command, statistics, lambda: reader.share_read), _stoppable() as stopping:
                run(
                    llm, reader, command.formatter, store, num_generations=command.num_generations,
                    arguments=command.arguments, limit=command.limit, statistics=statistics,
                    stopping=stopping,
                )  # fmt: skip
                writer.finish()
                if stopping():
                    return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        raise _as_configuration_error(error) from None
    print_facts(summary_lines(statistics, statistics.done, statistics.failed, reasons), sys.stderr)
    _print_failures(reasons)
    return FAILED_ROWS if statistics.failures else 0


def generate_file(llm: LLM, command: Command) -> int:
    """Start the run or resume it, report how it ended, and return the exit status."""
    from stillhouse.jobs.reporting.progress import summary_lines
    from stillhouse.jobs.runs.bulk import open_bulk_run
    from stillhouse.jobs.runs.online import RunStatistics
    from stillhouse.jobs.spending.budget import BudgetError
    from stillhouse.jobs.spending.prices import find_prices, offer_of

    try:
        bulk = open_bulk_run(llm, command)
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        raise _as_configuration_error(error) from None
    with bulk:
        earlier = bulk.summary
        if command.retry:
            print(f"{bulk.queued:,} failed rows are generated again", file=sys.stderr)
        if bulk.is_complete:
            print(f"{command.output} is complete: {earlier.rows:,} rows", file=sys.stderr)
            return FAILED_ROWS if earlier.failures else 0
        if bulk.resumed:
            print(f"going on: {earlier.rows:,} rows are finished", file=sys.stderr)
        problem, complete, stopped = None, False, False
        statistics = RunStatistics(prices=find_prices(offer_of(llm)))
        try:
            with llm:
                statistics.started = time.monotonic()
                with (
                    _collecting_less(),
                    _progress(llm, command, statistics, lambda: bulk.share_read),
                    _stoppable() as stopping,
                ):
                    complete = bulk.work(statistics, stopping)
                    stopped = stopping()
        except KeyboardInterrupt:
            bulk.on_interrupt()
        except StillhouseError as error:
            problem = error
        except OSError as error:
            problem = _as_configuration_error(error)
        if problem is not None:
            print_error(problem)
        with contextlib.suppress(StillhouseError):  # it may be the state itself that cannot be used
            summary = bulk.summary
            if complete:
                print_facts(
                    summary_lines(statistics, summary.done, summary.failed, bulk.reasons, summary.cost),
                    sys.stderr,
                )
                _print_failures(bulk.reasons)
                return FAILED_ROWS if summary.failures else 0
            if problem is None and not stopped and bulk.is_waiting:
                _print_jobs(bulk.jobs, summary.rows)
                return UNFINISHED_BATCH
            what = "the run stopped" if problem else "interrupted"
            more = "" if isinstance(problem, BudgetError) else "; the same command goes on"
            print(f"{what}: {summary.rows:,} finished rows are in {bulk.store.path}{more}", file=sys.stderr)
        return COULD_NOT_START if problem else INTERRUPTED


def _print_failures(reasons: Reasons) -> None:
    from stillhouse.jobs.reporting.progress import failure_lines

    for line in failure_lines(reasons):
        print(line, file=sys.stderr)


def _print_jobs(jobs: Sequence[Chunk], finished: int) -> None:
    from stillhouse.jobs.reporting.progress import job_lines

    for line in job_lines(jobs):
        print(line, file=sys.stderr)
    print(
        f"{finished:,} rows are finished; make the same command again to collect the others", file=sys.stderr
    )


@contextlib.contextmanager
def _progress(
    llm: LLM, command: Command, statistics: RunStatistics, share_read: Callable[[], float | None]
) -> Iterator[None]:
    from stillhouse.jobs.reporting.progress import show_progress

    limit = command.limit

    def share() -> float | None:
        if limit is None:
            return share_read()
        return max(share_read() or 0.0, statistics.pulled / limit)

    window = getattr(llm, "max_concurrency", None) or llm.preferred_batch_size
    with show_progress(statistics, sys.stderr, share=share, window=window):
        yield


@contextlib.contextmanager
def _collecting_less() -> Iterator[None]:
    """Look for cycles of objects less often: a row makes hundreds of objects, which die without one.

    Looking at every 700th of them, as Python does of itself, is a twentieth of what a row costs.
    """
    before = gc.get_threshold()
    if before[0]:  # somebody may have turned it off
        gc.set_threshold(max(before[0], COLLECT_EVERY), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextlib.contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Let the first interrupt or request to terminate end the run with what is in flight, the second at once.

    Requests in flight are paid for: waiting for them takes seconds, dropping them means paying again.
    On a thread other than the main one, which cannot handle signals, nothing is changed.
    """
    stopped = False

    def stop(number: int, frame: object) -> None:  # noqa: ARG001
        nonlocal stopped
        if stopped:
            raise KeyboardInterrupt
        stopped = True
        with contextlib.suppress(OSError):  # after SIGHUP, the terminal may be gone
            print(
                "stopping: what is in flight is waited for; interrupt again to stop at once", file=sys.stderr
            )

    previous = _install(stop) if threading.current_thread() is threading.main_thread() else {}
    try:
        yield lambda: stopped
    finally:
        for number, handler in previous.items():
            # It is `None` if it was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _install(stop: Callable[[int, object], None]) -> dict[signal.Signals, Any]:
    """Handle every signal that asks a process to end, and return the earlier handlers."""
    previous = {}
    for name in STOP_SIGNALS:
        number = getattr(signal, name, None)
        # `nohup` ignores SIGHUP, so that the command outlives its terminal.
        if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
            continue
        previous[number] = signal.signal(number, stop)
    return previous


def _as_configuration_error(error: OSError) -> ConfigurationError:
    where = f"{error.filename}: " if error.filename else ""
    return ConfigurationError(
        f"{where}{error.strerror or error}", hint="make room, or check the file, and start again"
    )
