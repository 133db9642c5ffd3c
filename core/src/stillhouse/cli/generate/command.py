"""`stillhouse generate`: the main job, a whole file of prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.output import guarded, print_note, usage_errors

if TYPE_CHECKING:
    from stillhouse.jobs.launch.options import Options
    from stillhouse.llm import LLM

__all__ = ["generate"]

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
@click.option(
    "--max-failures",
    metavar="N",
    type=click.IntRange(min=0),
    help="Stop once N rows failed; 0 never stops. If not said, stop when the first rows all fail in a way "
    "that no row causes.",
)
@click.option("--traceback", is_flag=True, help="Print the traceback of a backend's own bug.")
@click.option("--verbose", is_flag=True, help="Print what is sent and answered, without secrets.")
@click.option("--estimate", is_flag=True, help="Say how much there is to do, and do nothing.")
@guarded
def generate(**values: Any) -> None:
    """Generate for every row of INPUT and write the rows, in order, with what was generated.

    INPUT is a .jsonl, .csv or .parquet file, or - for JSONL on standard input. A row's prompt is its column
    messages (a chat), prompt or instruction, or what --template makes of its columns. A row that
    fails has its error in the column error, and the others go on.

    What is finished is kept in OUTPUT.run.db at once. However a run ends, the same command goes
    on with it, and generates for no finished row again. A run that stopped at a ceiling goes on
    with a higher one. A run whose first rows all fail in a way that no row causes, such as a bug of the
    backend, stops too; the same command generates those rows again.

    Exit status: 0 all rows done, 1 the run could not start or go on, 2 usage, 3 finished with
    failed rows, 4 an offline batch is not finished yet (make the same command again to collect
    it), 130 interrupted.
    """
    with usage_errors():
        options, llm, arguments = _read(values)
        from stillhouse.jobs.launch.options import check_llm
        from stillhouse.jobs.launch.work import prepare

        check_llm(options, llm)
        command = prepare(options, llm, arguments)
    from stillhouse.cli.generate.run import generate_file, generate_once, print_estimate, print_rows

    if options.prompt is not None:
        status = generate_once(llm, command, options.prompt)
    elif options.estimate:
        status = print_estimate(llm, command)
    else:
        status = print_rows(llm, command) if options.output == "-" else generate_file(llm, command)
    if status:
        raise click.exceptions.Exit(status)


def _read(values: dict[str, Any]) -> tuple[Options, LLM, dict[str, Any]]:
    """Turn what the command line says into options, an LLM, which is not loaded, and generation parameters.

    Raises:
        ConfigurationError: options exclude each other, or a name or a value of the LLM is wrong.
        UnknownLLMError, PluginError: the LLM is not installed or unusable.
    """
    from stillhouse.jobs.launch.options import Options, check_options

    options = Options(**{**values, "param": {}, "fields": {}})
    check_options(options)
    from stillhouse.cli.settings import check_address, foreign_addresses, parse_arguments, parse_fields
    from stillhouse.jobs.launch.llms import check_fields, named, new_llm
    from stillhouse.registry import default_registry

    cls, settings = named(default_registry(), options.llm, options.config)
    name = settings["llm"]
    fields = parse_fields(cls, name, values["fields"])
    if options.max_concurrency is not None:
        check_fields(cls, name, ["max_concurrency"])
        fields["max_concurrency"] = options.max_concurrency
    llm = new_llm(default_registry(), settings, fields)
    check_address(llm, fields)
    if options.config is not None:
        for address, key in foreign_addresses(default_registry(), settings, fields):
            print_note(f"{options.config} names the address {address}: the key in {key} is sent there")
    return options, llm, parse_arguments(cls, values["param"])
