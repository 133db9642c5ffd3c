"""The options of `stillhouse generate`, in groups: what they are about is a comment in `Options` too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from stillhouse.cli.completing import complete_fields, complete_llms, complete_parameters
from stillhouse.cli.help import Whole, grouped

__all__ = ["run_options"]

_WAIT_SECONDS = 60.0

F = TypeVar("F", bound=Callable[..., Any])

_LLM: list[Callable[[Any], Any]] = [
    click.option(
        "--llm",
        metavar="NAME[:MODEL]",
        shell_complete=complete_llms,
        help="The LLM, and its model if it has several. See stillhouse list.",
    ),
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Saved settings of an LLM, JSON or YAML.",
    ),
    click.option(
        "--set",
        "fields",
        metavar="FIELD=VALUE",
        multiple=True,
        shell_complete=complete_fields,
        help="Set a field of the LLM. Repeatable. See stillhouse show NAME.",
    ),
    click.option(
        "--param",
        metavar="NAME=VALUE",
        multiple=True,
        shell_complete=complete_parameters,
        help="Set a generation parameter. Repeatable. See stillhouse show NAME.",
    ),
    click.option(
        "--row-params",
        is_flag=True,
        help="Take parameters, tools and structured_output from columns of these names.",
    ),
    click.option(
        "--schema",
        type=click.Path(),
        metavar="FILE|FIELDS",
        help="A JSON schema that every answer must match: a file, or fields such as 'name, age int'.",
    ),
    click.option(
        "-n",
        "--num-generations",
        type=Whole(1),
        metavar="N",
        default=1,
        show_default=True,
        help="The number of generations per row.",
    ),
]
"""The LLM and what it is asked for."""

_READING: list[Callable[[Any], Any]] = [
    click.option(
        "--delimiter",
        metavar="CHARACTER",
        help="The separator of CSV and TSV: a character, comma, semicolon, tab or pipe. Detected by default.",
    ),
    click.option("--encoding", metavar="NAME", help="The encoding of text. Detected by default."),
]
"""How INPUT is read."""

_PROMPTS: list[Callable[[Any], Any]] = [
    click.option(
        "--prompt",
        metavar="TEXT",
        help="Generate once for TEXT and print the answer as it comes; - reads it from standard input.",
    ),
    click.option("--prompt-column", metavar="NAME", help="The column with the prompt."),
    click.option("--messages-column", metavar="NAME", help="The column with the chat."),
    click.option(
        "--template", metavar="TEXT", help="A Jinja2 template for the prompt, over a row's columns."
    ),
    click.option(
        "--template-file", type=click.Path(path_type=Path), metavar="FILE", help="A file with a template."
    ),
    click.option("--system", metavar="TEXT", help="A system message, for rows without one."),
    click.option(
        "--system-file", type=click.Path(path_type=Path), metavar="FILE", help="A file with a system message."
    ),
    click.option(
        "--drop-last-assistant",
        is_flag=True,
        help="Remove the assistant's answer at the end of a chat, as training data has it.",
    ),
    click.option("--raw", is_flag=True, help="Send the text as a raw prompt, without a chat template."),
    click.option("--image-column", metavar="NAME", help="The column with a row's images."),
    click.option(
        "--images-from",
        metavar="DIR",
        multiple=True,
        callback=lambda _context, _option, value: value or None,
        help="The only folder from which image files are read. Repeatable.",
    ),
    click.option(
        "--preview",
        metavar="N",
        type=Whole(1),
        help="Print the first N inputs as they would be sent, and stop.",
    ),
    click.option("--json", is_flag=True, help="Print the preview as JSON, one input per line."),
]
"""What a row's prompt is."""

_CHOOSING: list[Callable[[Any], Any]] = [
    click.option(
        "--where",
        metavar="EXPR",
        help="Process only rows for which this Jinja2 expression over their columns is true.",
    ),
    click.option(
        "--sample",
        metavar="N",
        type=Whole(1),
        help="Of these, process N random rows; the same ones each time.",
    ),
    click.option(
        "--shard",
        metavar="I/N",
        help="Of these, process the I-th of N parts; stillhouse join joins the outputs.",
    ),
    click.option("--limit", metavar="N", type=Whole(1), help="Process only the first N rows."),
    click.option(
        "--dedupe",
        is_flag=True,
        help="Generate once for equal inputs, and give each of these rows the result.",
    ),
]
"""Which rows belong to the run."""

_WRITING: list[Callable[[Any], Any]] = [
    click.option(
        "-o",
        "--output",
        metavar="FILE",
        help="The .jsonl, .csv, .tsv or .parquet file to write, or - for standard output.",
    ),
    click.option(
        "--output-prefix",
        metavar="PREFIX",
        help="A prefix for the names of the columns that the output adds.",
    ),
    click.option("--text", is_flag=True, help="Write the text instead of a list of texts; not with -n."),
    click.option(
        "--expand", is_flag=True, help="Write the fields of a JSON answer as columns too; not with -n."
    ),
    click.option(
        "--format",
        metavar="NAME",
        help="jsonl, csv, tsv, parquet or openai-batch, whatever the name of FILE is.",
    ),
    click.option(
        "--state",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The run's state (default: OUTPUT.run.db). With the state of a finished run, another OUTPUT is "
        "written without generating again.",
    ),
    click.option(
        "--state-copy",
        metavar="URL",
        help="Keep a copy of the state at URL, such as s3://bucket/run.db.gz, updated about once a minute. "
        "On another machine, the same command resumes from it.",
    ),
]
"""What is written."""

_RUNNING: list[Callable[[Any], Any]] = [
    click.option("--restart", is_flag=True, help="Discard an earlier run of this output, and start over."),
    click.option("--extend", is_flag=True, help="Resume although rows were added to INPUT."),
    click.option(
        "--retry", metavar="KIND[,KIND]", help="Retry the rows that failed with these kinds, or all."
    ),
    click.option(
        "--max-concurrency", metavar="N", type=Whole(1), help="The maximum number of rows in flight."
    ),
    click.option(
        "--metrics",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write the progress to FILE every five seconds, in the text format of Prometheus.",
    ),
    click.option(
        "--executor",
        metavar="NAME[:ADDRESS]",
        help="Generate with several workers: processes on this machine, or an executor of a plugin, such "
        "as ray.",
    ),
    click.option(
        "--workers",
        metavar="N",
        type=Whole(1),
        help="The number of workers (default: one for each core, or as many as a cluster has room for).",
    ),
    click.option("--traceback", is_flag=True, help="Print the traceback of a backend's own bug."),
    click.option("--verbose", is_flag=True, help="Print requests and answers, without secrets."),
    click.option("--quiet", is_flag=True, help="Print warnings and errors only: no progress, no table."),
]
"""How the run is worked on."""

_LIMITS: list[Callable[[Any], Any]] = [
    click.option("--estimate", is_flag=True, help="Print how much is left to do, and stop."),
    click.option(
        "--max-tokens-total",
        metavar="N",
        type=Whole(1),
        help="Stop before the run takes more tokens, input and output together.",
    ),
    click.option(
        "--max-cost",
        metavar="USD",
        type=click.FloatRange(min=0, min_open=True),
        help="Stop before the run costs more.",
    ),
    click.option(
        "--max-failures",
        metavar="N",
        type=Whole(0),
        help="Stop after N failed rows; 0 never stops. By default, stop if the first rows all fail in a way "
        "that no row causes.",
    ),
]
"""What a run may take."""

_BATCHES: list[Callable[[Any], Any]] = [
    click.option(
        "--batch",
        is_flag=True,
        help="Use the provider's offline batches; an engine on this machine takes all rows at once, in its "
        "fastest order.",
    ),
    click.option(
        "--wait",
        type=click.FloatRange(min=0, min_open=True),
        is_flag=False,
        flag_value=_WAIT_SECONDS,
        metavar="[SECONDS]",
        help=f"Wait for the batches, polling every SECONDS (default: {_WAIT_SECONDS:.0f}).",
    ),
    click.option(
        "--finish-online",
        is_flag=True,
        help="Cancel unfinished batches, keep their results, and generate the remaining rows online.",
    ),
]
"""Offline batches."""

_GROUPS = [
    ("Model", _LLM),
    ("Input", _READING),
    ("Prompts", _PROMPTS),
    ("Rows", _CHOOSING),
    ("Output", _WRITING),
    ("Run", _RUNNING),
    ("Limits", _LIMITS),
    ("Offline batches", _BATCHES),
]


def run_options(function: F) -> F:
    """Give a command all the options of a run; the help shows them in this order."""
    return grouped(function, _GROUPS)
