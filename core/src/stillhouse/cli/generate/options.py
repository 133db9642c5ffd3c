"""The options of `stillhouse generate`, in groups: what they are about is a comment in `Options` too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["run_options"]

_WAIT_SECONDS = 60.0

F = TypeVar("F", bound=Callable[..., Any])

_LLM: list[Callable[[Any], Any]] = [
    click.option("--llm", metavar="NAME[:MODEL]", help="The LLM, and the model it shall use."),
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Settings of an LLM that were saved, JSON or YAML.",
    ),
    click.option(
        "--set", "fields", metavar="FIELD=VALUE", multiple=True, help="A field of the LLM; repeatable."
    ),
    click.option(
        "--param", metavar="NAME=VALUE", multiple=True, help="A generation parameter; may be repeated."
    ),
    click.option(
        "--row-params",
        is_flag=True,
        help="Take parameters, tools and structured_output of a row from its columns of these names.",
    ),
    click.option(
        "--schema",
        type=click.Path(),
        metavar="FILE|FIELDS",
        help="The form of the answers: a file with a JSON schema, or fields such as 'name, age int'.",
    ),
    click.option(
        "-n",
        "--num-generations",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="How many generations of each row.",
    ),
]
"""The LLM and what it is asked for."""

_READING: list[Callable[[Any], Any]] = [
    click.option(
        "--delimiter",
        metavar="CHARACTER",
        help="What separates the fields of CSV and TSV: a character, or comma, semicolon, tab, pipe. If not "
        "said, it is found.",
    ),
    click.option("--encoding", metavar="NAME", help="The encoding of text. If not said, it is found."),
]
"""How INPUT is read."""

_PROMPTS: list[Callable[[Any], Any]] = [
    click.option(
        "--prompt",
        metavar="TEXT",
        help="Generate once for this text and print the answer as it comes; without INPUT.",
    ),
    click.option("--prompt-column", metavar="NAME", help="The column that has the prompt."),
    click.option("--messages-column", metavar="NAME", help="The column that has the chat."),
    click.option("--template", metavar="TEXT", help="A Jinja2 template over a row's columns: the prompt."),
    click.option(
        "--template-file", type=click.Path(path_type=Path), metavar="FILE", help="A file with a template."
    ),
    click.option("--system", metavar="TEXT", help="A system message, for rows that have none of their own."),
    click.option(
        "--system-file", type=click.Path(path_type=Path), metavar="FILE", help="A file with a system message."
    ),
    click.option(
        "--drop-last-assistant",
        is_flag=True,
        help="Leave out the assistant's answer at the end of a chat, as data for training has it.",
    ),
    click.option("--raw", is_flag=True, help="Send the text as a raw prompt, without a chat template."),
    click.option("--image-column", metavar="NAME", help="The column with the images of a row."),
    click.option(
        "--images-from",
        metavar="DIR",
        multiple=True,
        callback=lambda _context, _option, value: value or None,
        help="A folder from which files of images are read, and from nowhere else; may be repeated.",
    ),
    click.option(
        "--preview",
        metavar="N",
        type=click.IntRange(min=1),
        help="Print the first N inputs as they would be sent, and do nothing.",
    ),
    click.option("--json", is_flag=True, help="Print the preview as JSON, an input on each line."),
]
"""What a row's prompt is."""

_CHOOSING: list[Callable[[Any], Any]] = [
    click.option(
        "--where",
        metavar="EXPR",
        help="Generate for the rows for which this Jinja2 expression over their columns is true.",
    ),
    click.option(
        "--sample",
        metavar="N",
        type=click.IntRange(min=1),
        help="Of these, generate for N rows at random; the same ones each time.",
    ),
    click.option(
        "--shard",
        metavar="I/N",
        help="Of these, generate for the I-th of N parts; stillhouse join joins the outputs.",
    ),
    click.option("--limit", type=click.IntRange(min=1), help="Generate for the first so many rows only."),
    click.option(
        "--dedupe",
        is_flag=True,
        help="Generate once for rows that ask for the same, and give each of them the result.",
    ),
]
"""Which rows belong to the run."""

_WRITING: list[Callable[[Any], Any]] = [
    click.option(
        "-o", "--output", help="The .jsonl, .csv, .tsv or .parquet file to write, or - for standard output."
    ),
    click.option(
        "--output-prefix",
        metavar="PREFIX",
        help="What the names of the columns begin with that the output adds to those of the input.",
    ),
    click.option("--text", is_flag=True, help="Write the one text instead of a list; not with -n."),
    click.option(
        "--expand",
        is_flag=True,
        help="Write the fields of an answer that is a JSON object as columns too; not with -n.",
    ),
    click.option(
        "--format",
        metavar="NAME",
        help="jsonl, csv, tsv, parquet or openai-batch, whatever the name of OUTPUT ends in.",
    ),
    click.option(
        "--state",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Where the run's state is; OUTPUT.run.db if not said. With that of a finished run, another "
        "OUTPUT is written, and nothing is generated again.",
    ),
]
"""What is written."""

_RUNNING: list[Callable[[Any], Any]] = [
    click.option("--restart", is_flag=True, help="Forget an earlier run of this output, and replace it."),
    click.option(
        "--extend",
        is_flag=True,
        help="Go on although rows were added to INPUT: what is finished is kept.",
    ),
    click.option(
        "--retry", metavar="KIND[,KIND]", help="Generate the rows again that failed with these kinds, or all."
    ),
    click.option("--max-concurrency", type=click.IntRange(min=1), help="How many rows may be in flight."),
    click.option(
        "--batch",
        is_flag=True,
        help="Generate through the provider's offline batches; with an engine on this machine, at once, in "
        "the order that it is fastest in.",
    ),
    click.option(
        "--wait",
        type=click.FloatRange(min=0, min_open=True),
        is_flag=False,
        flag_value=_WAIT_SECONDS,
        metavar="[SECONDS]",
        help=f"Ask every so many seconds until the batches are done; {_WAIT_SECONDS:.0f} if not said.",
    ),
    click.option(
        "--finish-online",
        is_flag=True,
        help="Cancel the batches that go on, keep what they did, and generate the rest online.",
    ),
    click.option(
        "--max-tokens-total",
        type=click.IntRange(min=1),
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
        type=click.IntRange(min=0),
        help="Stop once N rows failed; 0 never stops. If not said, stop when the first rows all fail in a "
        "way that no row causes.",
    ),
    click.option("--traceback", is_flag=True, help="Print the traceback of a backend's own bug."),
    click.option("--verbose", is_flag=True, help="Print what is sent and answered, without secrets."),
    click.option("--estimate", is_flag=True, help="Say how much there is to do, and do nothing."),
]
"""How the run is worked on."""


def run_options(function: F) -> F:
    """Give a command all the options of a run; the help shows them in this order."""
    for option in reversed([*_LLM, *_READING, *_PROMPTS, *_CHOOSING, *_WRITING, *_RUNNING]):
        function = option(function)
    return function
