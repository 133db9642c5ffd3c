"""`stillhouse generate`: the main job, a whole file of prompts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from stillhouse.cli.output import guarded, print_error
from stillhouse.errors import ConfigurationError

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
@click.option("--batch", is_flag=True, help="Generate through the provider's offline batches.")
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
    retry: str | None,
    batch: bool,
    wait: float | None,
    finish_online: bool,
    max_tokens_total: int | None,
    max_cost: float | None,
    estimate: bool,
) -> None:
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
    with _usage():
        if (input is None) == (prompt is None):
            raise ConfigurationError("there is nothing to do", hint="give either INPUT or --prompt TEXT")
        has_ceiling = max_tokens_total is not None or max_cost is not None
        if prompt is not None and (output or template is not None or limit or has_ceiling or estimate):
            raise ConfigurationError(
                "--prompt prints what it generates",
                hint="leave out -o, --template, --limit, --estimate, --max-tokens-total and --max-cost",
            )
        if estimate and input == "-":
            raise ConfigurationError(
                "what is read from standard input is gone afterwards", hint="give --estimate a file"
            )
        if output == "-" and (restart or retry or batch or finish_online):
            raise ConfigurationError(
                "what was printed is not kept", hint="give -o OUTPUT.jsonl for a run that can be gone on with"
            )
        if prompt is None and output is None and not estimate:
            raise ConfigurationError("no output is named", hint="give -o OUTPUT.jsonl, or -o - to print")
        if llm is None and config is None:
            raise ConfigurationError("no LLM is named", hint="give --llm NAME; stillhouse list shows them")
        from stillhouse.jobs.formats.rows import RowFormatter
        from stillhouse.jobs.runs.bulk import parse_kinds

        formatter = RowFormatter(template, system, raw)
        kinds = parse_kinds(retry) if retry else []
        if batch and finish_online:
            raise ConfigurationError("--finish-online ends the batches", hint="leave out --batch")
    from stillhouse.cli.settings import build_llm, parse_arguments
    from stillhouse.registry import default_registry

    with _usage():
        model = build_llm(default_registry(), llm, config, fields, max_concurrency)
        arguments = parse_arguments(type(model), param)
        offline = model.use_offline_batch_generation or batch
        if wait is not None and not (offline or finish_online):
            raise ConfigurationError("there is no batch to wait for", hint="give --batch as well")
        if offline and "offline_batch" not in model.capabilities:
            raise ConfigurationError(f"{llm or config} has no offline batches", hint="leave out --batch")
        if output is not None:
            model.use_offline_batch_generation = False  # the run sees to it
        wait = wait or (model.offline_batch_generation_block_until_done if offline else None)
        ceiling = None
        if has_ceiling and offline and not finish_online:
            raise ConfigurationError(
                "what a batch takes is told when it is done, so no ceiling on it can be held",
                hint="leave out --max-tokens-total and --max-cost; --estimate says what it takes at most",
            )
        if has_ceiling:
            from stillhouse.jobs.spending.budget import Ceiling

            ceiling = Ceiling(model, arguments, max_tokens_total, max_cost)
    from stillhouse.cli.generate.run import generate_file, generate_once, print_estimate, print_rows

    if prompt is not None:
        status = generate_once(model, formatter, prompt, num_generations, arguments)
    else:
        from stillhouse.jobs.runs.bulk import Command

        assert input is not None
        command = Command(
            input, output or "-", formatter, {"template": template, "system": system, "raw": raw},
            num_generations, arguments, limit, restart, kinds,
            offline and not finish_online, wait, finish_online, ceiling, [config] if config else [],
        )  # fmt: skip
        if estimate:
            status = print_estimate(model, command)
        else:
            status = print_rows(model, command) if output == "-" else generate_file(model, command)
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
