"""`stillhouse generate`: the main job, a whole file of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.generate.given import given_parts
from stillhouse.cli.generate.options import run_options
from stillhouse.cli.output import guarded, print_note, usage_errors

if TYPE_CHECKING:
    from stillhouse.jobs.launch.options import Options
    from stillhouse.llm import LLM

__all__ = ["generate"]


@click.command("generate")
@click.argument("input", nargs=-1, metavar="[INPUT]...")
@run_options
@guarded
def generate(**values: Any) -> None:
    """Generate for every row of INPUT and write the rows, in order, with what was generated.

    INPUT is one or several files, folders, globs or addresses such as s3://bucket/name: JSONL, JSON arrays,
    CSV, TSV, Parquet, also with .gz or .zst; or - for JSONL on standard input. A row's prompt is the first of
    its columns messages (a chat), conversations (ShareGPT's), prompt and instruction (with input, as Alpaca
    has it), or what the options say of its columns; what was taken is said. A row that fails has its error in
    the column error, and the others go on.

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
        from stillhouse.jobs.launch.preparing import prepare

        check_llm(options, llm)
        command = prepare(options, llm, arguments, given_parts(click.get_current_context()))
    from stillhouse.cli.generate.run import (
        generate_file,
        generate_once,
        print_estimate,
        print_preview,
        print_rows,
    )
    from stillhouse.jobs.prompts.words import PromptError

    with usage_errors(PromptError):
        if options.prompt is not None:
            status = generate_once(llm, command, options.prompt)
        elif options.preview is not None:
            status = print_preview(llm, command, options.preview, options.json)
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
    from stillhouse.jobs.sources.names import Names

    given: dict[str, Any] = {
        "input": Names(values["input"]) if values["input"] else None,
        "param": {},
        "fields": {},
    }
    options = Options(**{**values, **given})
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
