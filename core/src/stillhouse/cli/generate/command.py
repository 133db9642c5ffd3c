"""`stillhouse generate`: the main job, a whole file of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.generate.given import given_parts
from stillhouse.cli.generate.options import run_options
from stillhouse.cli.help import Command
from stillhouse.cli.output import guarded, print_note, usage_errors

if TYPE_CHECKING:
    from stillhouse.jobs.launch.options import Options
    from stillhouse.llm import LLM

__all__ = ["generate"]


@click.command(
    "generate",
    cls=Command,
    short_help="Generate for a file of prompts",
    examples=[
        ("One prompt", 'stillhouse generate --llm llamacpp --prompt "What is the capital of Peru?"'),
        ("A text from another program", "git diff | stillhouse generate --llm llamacpp --system Summarize."),
        ("A file, with a model and a parameter",
         "stillhouse generate questions.jsonl --llm openai:gpt-5-mini -o answers.jsonl \\\n"
         "    --param max_new_tokens=200"),
        ("Look at the first inputs, then estimate tokens and cost",
         "stillhouse generate questions.jsonl --llm openai:gpt-5-mini --preview 2\n"
         "stillhouse generate questions.jsonl --llm openai:gpt-5-mini --estimate"),
        ("Retry the rows that failed",
         "stillhouse generate questions.jsonl --llm openai:gpt-5-mini -o answers.jsonl \\\n"
         "    --retry all"),
    ],
)  # fmt: skip
@click.argument("input", nargs=-1, metavar="[INPUT]...")
@run_options
@guarded
def generate(**values: Any) -> None:
    """Generate an answer for each row of INPUT and write all rows, in order, with their answers.

    INPUT is one or several files, folders, globs or addresses such as s3://bucket/name: JSONL, JSON arrays,
    CSV, TSV, Parquet, also with .gz or .zst; or - for JSONL on standard input. A row's prompt is the first of
    its columns messages (a chat), conversations (ShareGPT), prompt and instruction (with input, as in
    Alpaca), or what the options name. The columns that are used are printed. A row that fails has its error
    in the column error; the other rows are not affected.

    Without INPUT and -o, what is piped into the command is one prompt, and its answer is printed.

    Finished rows are saved in OUTPUT.run.db at once. If a run stops for any reason, run the same command
    again to resume it; no finished row is generated again. A run that stopped at a limit resumes with a
    higher one. A run stops if its first rows all fail in a way that no row causes, such as a bug of the
    backend; the same command retries those rows.

    Exit status: 0 all rows done; 1 the run could not start or continue; 2 usage; 3 finished with failed
    rows; 4 an offline batch is not finished (run the same command again to collect it); 130 interrupted.
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
            run = print_rows if options.output == "-" else generate_file
            status = run(llm, command, quiet=options.quiet)
    if status:
        raise click.exceptions.Exit(status)


def _read(values: dict[str, Any]) -> tuple[Options, LLM, dict[str, Any]]:
    """Turn what the command line says into options, an LLM, which is not loaded, and generation parameters.

    Raises:
        ConfigurationError: options exclude each other, or a name or a value of the LLM is wrong.
        UnknownLLMError, PluginError: the LLM is not installed or unusable.
    """
    from stillhouse.cli.generate.piped import with_piped
    from stillhouse.jobs.launch.options import Options, check_options
    from stillhouse.jobs.sources.names import Names

    given: dict[str, Any] = {
        "input": Names(values["input"]) if values["input"] else None,
        "param": {},
        "fields": {},
    }
    options = with_piped(Options(**{**values, **given}))
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
    return options, llm, parse_arguments(cls, name, values["param"])
