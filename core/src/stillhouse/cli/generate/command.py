"""`stillhouse generate`: the main job, a whole file of prompts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.generate.options import Options, check_llm, check_options
from stillhouse.cli.output import guarded, print_error
from stillhouse.errors import ConfigurationError

if TYPE_CHECKING:
    from stillhouse.jobs.formats.rows import RowFormatter
    from stillhouse.jobs.runs.command import Command
    from stillhouse.llm import LLM

__all__ = ["generate"]

USAGE = 2

_WAIT_SECONDS = 60.0


@click.command("generate")
@click.argument("input", required=False)
@click.option("--llm", metavar="NAME[:MODEL]", help="The LLM, and the model it shall use.")
@click.option("-o", "--output", help="The .jsonl or .parquet file to write, or - for standard output.")
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
@click.option("--restart", is_flag=True, help="Forget an earlier run of this output, and replace it.")
@click.option(
    "--retry", metavar="KIND[,KIND]", help="Generate the rows again that failed with these kinds, or all."
)
@click.option(
    "--batch",
    is_flag=True,
    help="Generate through the provider's offline batches; with an engine on this machine, at once, in the "
    "order that it is fastest in.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0, min_open=True),
    is_flag=False,
    flag_value=_WAIT_SECONDS,
    metavar="[SECONDS]",
    help=f"Ask every so many seconds until the batches are done; {_WAIT_SECONDS:.0f} if not said.",
)
@click.option(
    "--finish-online",
    is_flag=True,
    help="Cancel the batches that go on, keep what they did, and generate the rest online.",
)
@click.option(
    "--max-tokens-total",
    type=click.IntRange(min=1),
    help="Stop before the run takes more tokens, input and output together.",
)
@click.option(
    "--max-cost",
    metavar="USD",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop before the run costs more.",
)
@click.option("--estimate", is_flag=True, help="Say how much there is to do, and do nothing.")
@guarded
def generate(**values: Any) -> None:
    """Generate for every row of INPUT and write the rows, in order, with what was generated.

    INPUT is a .jsonl, .csv or .parquet file, or - for JSONL on standard input. A row's prompt is its column
    messages (a chat), prompt or instruction, or what --template makes of its columns. A row that
    fails has its error in the column error, and the others go on.

    What is finished is kept in OUTPUT.run.db at once. However a run ends, the same command goes
    on with it, and generates for no finished row again. A run that stopped at a ceiling goes on
    with a higher one.

    Exit status: 0 all rows done, 1 the run could not start or go on, 2 usage, 3 finished with
    failed rows, 4 an offline batch is not finished yet (make the same command again to collect
    it), 130 interrupted.
    """
    options = Options(**values)
    with _usage():
        check_options(options)
        llm, formatter, command = _prepare(options)
    from stillhouse.cli.generate.run import generate_file, generate_once, print_estimate, print_rows

    if options.prompt is not None:
        status = generate_once(llm, formatter, options.prompt, command.num_generations, command.arguments)
    elif options.estimate:
        status = print_estimate(llm, command)
    else:
        status = print_rows(llm, command) if options.output == "-" else generate_file(llm, command)
    if status:
        raise click.exceptions.Exit(status)


def _prepare(options: Options) -> tuple[LLM, RowFormatter, Command]:
    """Turn the options into an LLM, which is not loaded, and what it has to do.

    Raises:
        ConfigurationError: an option has a wrong value, or does not go with the LLM.
        UnknownLLMError, PluginError: the LLM is not installed or unusable.
    """
    from stillhouse.jobs.formats.rows import RowFormatter
    from stillhouse.jobs.runs.command import Command, parse_kinds

    formatter = RowFormatter(options.template, options.system, options.raw)
    kinds = parse_kinds(options.retry) if options.retry else []
    from stillhouse.cli.settings import build_llm, parse_arguments
    from stillhouse.registry import default_registry

    llm = build_llm(default_registry(), options.llm, options.config, options.fields, options.max_concurrency)
    arguments = parse_arguments(type(llm), options.param)
    check_llm(options, llm)
    is_offline, in_order = options.is_offline(llm), options.is_in_order(llm)
    if options.output is not None:
        llm.use_offline_batch_generation = False  # the run submits the batches itself
    ceiling = None
    if options.has_ceiling:
        from stillhouse.jobs.spending.budget import Ceiling

        ceiling = Ceiling(llm, arguments, options.max_tokens_total, options.max_cost)
    command = Command(
        source=options.input or "",
        output=options.output or "-",
        formatter=formatter,
        formatting={"template": options.template, "system": options.system, "raw": options.raw},
        num_generations=options.num_generations,
        arguments=arguments,
        limit=options.limit,
        restart=options.restart,
        retry=kinds,
        offline=is_offline and not options.finish_online,
        in_order=in_order,
        wait=options.wait or (llm.offline_batch_generation_block_until_done if is_offline else None),
        finish_online=options.finish_online,
        ceiling=ceiling,
        reads=[options.config] if options.config else [],
    )
    return llm, formatter, command


@contextlib.contextmanager
def _usage() -> Iterator[None]:
    """End the command with the exit status for wrong options, before anything is loaded."""
    try:
        yield
    except ConfigurationError as error:
        print_error(error)
        raise click.exceptions.Exit(USAGE) from None
