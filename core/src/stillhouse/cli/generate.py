"""`stillhouse generate`: the main job, a whole file of prompts."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.output import guarded, print_error
from stillhouse.errors import ConfigurationError, StillhouseError

if TYPE_CHECKING:
    from stillhouse.jobs.rows import RowFormatter
    from stillhouse.jobs.runner import RunStatistics
    from stillhouse.jobs.store import RunStore
    from stillhouse.llm import LLM

__all__ = ["generate"]

COULD_NOT_START, USAGE, FAILED_ROWS, INTERRUPTED = 1, 2, 3, 130


@click.command("generate")
@click.argument("input", required=False)
@click.option("--llm", metavar="NAME[:MODEL]", help="The LLM, and the model it shall use.")
@click.option("-o", "--output", help="The .jsonl file to write, or - for standard output.")
@click.option("--prompt", metavar="TEXT", help="Generate once for this text, instead of INPUT, and print.")
@click.option("--template", metavar="TEXT", help="A Jinja2 template over a row's columns, for the prompt.")
@click.option("--system", metavar="TEXT", help="A system message, for rows that have none of their own.")
@click.option("--raw", is_flag=True, help="Send the text as a raw prompt, without a chat template.")
@click.option(
    "-n",
    "--num-generations",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many generations of each row.",
)
@click.option("--param", metavar="NAME=VALUE", multiple=True, help="A generation parameter; may be repeated.")
@click.option(
    "--set", "fields", metavar="FIELD=VALUE", multiple=True, help="A field of the LLM; may be repeated."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings of an LLM that were saved, JSON or YAML.",
)
@click.option("--max-concurrency", type=click.IntRange(min=1), help="How many rows may be in flight.")
@click.option("--limit", type=click.IntRange(min=1), help="Generate for the first so many rows only.")
@click.option("--restart", is_flag=True, help="Replace an output that is there already.")
@guarded
def generate(
    input: str | None,
    llm: str | None,
    output: str | None,
    prompt: str | None,
    template: str | None,
    system: str | None,
    raw: bool,
    num_generations: int,
    param: tuple[str, ...],
    fields: tuple[str, ...],
    config: Path | None,
    max_concurrency: int | None,
    limit: int | None,
    restart: bool,
) -> None:
    """Generate for every row of INPUT and write the rows, in order, with what was generated.

    INPUT is a .jsonl or .csv file, or - for JSONL on standard input. A row's prompt is its column
    messages (a chat), prompt or instruction, or what --template makes of its columns. A row that
    fails has its error in the column error, and the others go on.

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
        model = build_llm(default_registry(), llm, config, fields, max_concurrency)
        arguments = parse_arguments(type(model), param)
    if prompt is not None:
        status = _generate_once(model, formatter, prompt, num_generations, arguments)
    else:
        assert input is not None
        assert output is not None
        status = _generate_file(
            model, formatter, input, output, num_generations, arguments, limit=limit, restart=restart
        )
    if status:
        raise click.exceptions.Exit(status)


@contextlib.contextmanager
def _usage() -> Iterator[None]:
    """A wrong option ends the command with the status for that, before anything is loaded."""
    try:
        yield
    except ConfigurationError as error:
        print_error(error)
        raise click.exceptions.Exit(USAGE) from None


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

                def share() -> float | None:
                    if limit is None:
                        return reader.share_read
                    return max(reader.share_read or 0.0, statistics.pulled / limit)

                with show_progress(statistics, sys.stderr, share=share, window=window):
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
