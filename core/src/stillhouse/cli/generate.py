"""`stillhouse generate`: the main job, a whole file of prompts."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillhouse.cli.output import guarded, print_error
from stillhouse.errors import ConfigurationError, StillhouseError

if TYPE_CHECKING:
    from stillhouse.jobs.rows import RowFormatter
    from stillhouse.jobs.runner import RunStatistics
    from stillhouse.jobs.store import RunStore
    from stillhouse.llm import LLM

__all__ = ["generate"]

COULD_NOT_START, USAGE, FAILED_ROWS, INTERRUPTED = 1, 2, 3, 130


@guarded
def generate(
    input: Annotated[
        str | None,
        typer.Argument(help="A .jsonl or .csv file, or - for JSONL on standard input.", show_default=False),
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option("--llm", metavar="NAME[:MODEL]", help="The LLM, and the model it shall use."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="The .jsonl file to write, or - for standard output."),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="Generate once for this text, instead of INPUT, and print.")
    ] = None,
    template: Annotated[
        str | None, typer.Option("--template", help="A Jinja2 template over a row's columns, for the prompt.")
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", help="A system message, for rows that have none of their own.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Send the text as a raw prompt, without a chat template.")
    ] = False,
    num_generations: Annotated[
        int, typer.Option("-n", "--num-generations", min=1, help="How many generations of each row.")
    ] = 1,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="A generation parameter; may be repeated."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field of the LLM; may be repeated."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings of an LLM that were saved, JSON or YAML.")
    ] = None,
    max_concurrency: Annotated[
        int | None, typer.Option("--max-concurrency", min=1, help="How many rows may be in flight.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Generate for the first so many rows only.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Replace an output that is there already.")
    ] = False,
) -> None:
    """Generate for every row of INPUT and write the rows, in their order, with what was generated.

    A row's prompt is its column messages (a chat), prompt or instruction, or what --template makes
    of its columns. A row that fails has its error in the column error, and the others go on.

    Exit status: 0 all rows done, 1 the run could not start or go on, 2 usage, 3 finished with
    failed rows, 130 interrupted.
    """
    with _usage():
        if (input is None) == (prompt is None):
            raise ConfigurationError("there is nothing to do", hint="give either INPUT or --prompt TEXT")
        if prompt is not None and (output is not None or template is not None or limit is not None):
            raise ConfigurationError(
                "--prompt prints what it generates", hint="leave out -o, --template and --limit"
            )
        if prompt is None and output is None:
            raise ConfigurationError("no output is named", hint="give -o OUTPUT.jsonl, or -o - to print")
        if llm is None and config is None:
            raise ConfigurationError("no LLM is named", hint="give --llm NAME; stillhouse list shows them")
        from stillhouse.jobs.rows import RowFormatter

        formatter = RowFormatter(template, system, raw)
    from stillhouse.cli.settings import build_llm, parse_arguments
    from stillhouse.registry import default_registry

    with _usage():
        model = build_llm(default_registry(), llm, config, set_ or [], max_concurrency)
        arguments = parse_arguments(type(model), param or [])
    if prompt is not None:
        status = _generate_once(model, formatter, prompt, num_generations, arguments)
    else:
        assert input is not None
        assert output is not None
        status = _generate_file(
            model, formatter, input, output, num_generations, arguments, limit=limit, restart=restart
        )
    if status:
        raise typer.Exit(status)


@contextlib.contextmanager
def _usage() -> Iterator[None]:
    """A wrong option ends the command with the status for that, before anything is loaded."""
    try:
        yield
    except ConfigurationError as error:
        print_error(error)
        raise typer.Exit(USAGE) from None


def _generate_once(
    llm: LLM, formatter: RowFormatter, prompt: str, num_generations: int, arguments: dict[str, Any]
) -> int:
    from stillhouse.jobs.rows import Row

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


def _generate_file(
    llm: LLM,
    formatter: RowFormatter,
    input: str,
    output: str,
    num_generations: int,
    arguments: dict[str, Any],
    *,
    limit: int | None,
    restart: bool,
) -> int:
    from stillhouse.jobs.progress import show_progress
    from stillhouse.jobs.readers import Reader
    from stillhouse.jobs.runner import RunStatistics, run
    from stillhouse.jobs.store import JsonlStore

    statistics = RunStatistics()
    reader = Reader(input)
    with contextlib.closing(reader), _terminable():
        store = JsonlStore(output, llm.model_name, replace=restart)
        try:
            with llm:
                statistics = RunStatistics()
                window = getattr(llm, "max_concurrency", None) or llm.preferred_batch_size
                with show_progress(statistics, sys.stderr, share=lambda: reader.share_read, window=window):
                    run(
                        llm,
                        islice(reader, limit),
                        formatter,
                        store,
                        num_generations=num_generations,
                        arguments=arguments,
                        statistics=statistics,
                    )
            store.finish()
        except KeyboardInterrupt:
            _print_kept("interrupted", store, statistics)
            return INTERRUPTED
        except (StillhouseError, OSError) as error:
            problem = error if isinstance(error, StillhouseError) else _as_configuration_error(error)
            print_error(problem)
            _print_kept("the run stopped", store, statistics)
            return COULD_NOT_START
    _print_summary(statistics)
    return FAILED_ROWS if statistics.failures else 0


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let a request to terminate end the run as an interrupt does."""

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _as_configuration_error(error: OSError) -> ConfigurationError:
    where = f"{error.filename}: " if error.filename else ""
    return ConfigurationError(
        f"{where}{error.strerror or error}", hint="make room, or check the file, and start again"
    )


def _print_kept(what: str, store: RunStore, statistics: RunStatistics) -> None:
    place = store.abandon()
    print(f"{what}: {statistics.rows:,} finished rows are in {place}", file=sys.stderr)


def _print_summary(statistics: RunStatistics) -> None:
    from stillhouse.jobs.progress import summary_lines

    lines = summary_lines(statistics)
    width = max(len(label) for label, _ in lines)
    for label, value in lines:
        print(f"{label.ljust(width)}  {value}", file=sys.stderr)
