"""`Options`: what a run may be told, by the command or from Python, and which options exclude each other.

Over 300 lines: it is two tables, of the options and of those that exclude each other, an entry each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse._defaults import default_backends
from stillhouse.errors import ConfigurationError, near_matches
from stillhouse.jobs.formats.writing import BATCH, FORMATS

if TYPE_CHECKING:
    from stillhouse.llm import LLM

__all__ = ["WAIT_SECONDS", "Options", "check_llm", "check_options", "in_python"]

WAIT_SECONDS = 60.0
"""Between two polls of an offline batch, where nothing else is said."""


@dataclass(frozen=True)
class Options:
    """The options of a run, each under the name that the command and `stillhouse.run` have for it.

    Attributes:
        input: files, folders, globs, addresses, or what a plugin opens; from Python also rows.
        llm: `NAME`, `NAME:MODEL` or an alias; from Python also an LLM. `None` is the default of the user's
            config file.
        output: a file, or what a plugin writes.
        prompt: one text to generate for, instead of an input; for the command alone.
        prompt_column: the column that has the prompt.
        messages_column: the column that has the chat.
        template: a Jinja2 template over a row's columns, for the prompt.
        template_file: a file with one.
        system: a system message, for rows that have none of their own.
        system_file: a file with one.
        drop_last_assistant: whether the assistant's answer at the end of a chat is left out.
        raw: whether a text is sent without a chat template.
        preview: how many inputs are printed, instead of a run; for the command alone.
        json: whether they are printed as JSON; likewise.
        image_column: the column with the images of a row.
        images_from: the folders from which files of images are read.
        num_generations: how many generations of each row.
        param: generation parameters.
        row_params: whether rows have generation parameters, tools and structured outputs of their own.
        schema: a file with the JSON schema of every answer, or its fields in a line, such as
            `name, age int`; from Python also the schema, or a pydantic class.
        fields: fields of the LLM.
        config: the saved settings of an LLM.
        delimiter: what separates the fields of CSV and TSV, instead of what is found.
        encoding: the encoding of text, likewise.
        max_concurrency: how many rows may be in flight.
        where: an expression over a row's columns, which says whether the row belongs to the run.
        sample: how many of these rows belong to it, at random.
        shard: a part of the rows, `I/N`.
        limit: how many rows belong to the run.
        dedupe: whether rows that ask for the same are generated for once.
        output_prefix: what the names of the columns begin with that the output adds.
        text: whether the one text is written instead of a list.
        expand: whether the fields of an answer that is a JSON object are columns.
        format: the format of the output, whatever its name ends in.
        state: where the state of the run is, if it is not beside the output.
        state_copy: the address of a copy of the state, which is written while the run works.
        restart: whether an earlier run of this output is forgotten.
        extend: whether rows may have been added to the input.
        retry: the kinds of failures whose rows are generated again, or `all`.
        executor: where the generating is done, `NAME` or `NAME:ADDRESS`; `None` is in this process.
        workers: how many workers the executor has.
        batch: whether the run goes through offline batches.
        wait: seconds between two polls until they are done; `True` means `WAIT_SECONDS`.
        finish_online: whether the batches that go on are cancelled.
        max_tokens_total: the run stops before it takes more tokens.
        max_cost: the run stops before it costs more, in USD.
        max_failures: the run stops once so many rows failed; 0 for any number, and `None` to stop only if the
            run is hopeless.
        metrics: a file that has the run's progress for Prometheus, replaced every few seconds.
        traceback: whether the traceback of a backend's own bug is printed; for the command alone.
        verbose: whether what is sent and answered is printed; for the command alone.
        quiet: whether only warnings and errors are printed; for the command alone.
        estimate: whether nothing is done but an estimate.
    """

    input: Any = None

    # The LLM, and what it is asked for.
    llm: Any = None
    config: Path | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    param: Mapping[str, Any] = field(default_factory=dict)
    row_params: bool = False
    schema: Any = None
    num_generations: int = 1

    # How the input is read.
    delimiter: str | None = None
    encoding: str | None = None

    # What a row's prompt is.
    prompt: str | None = None
    prompt_column: str | None = None
    messages_column: str | None = None
    template: str | None = None
    template_file: str | PathLike[str] | None = None
    system: str | None = None
    system_file: str | PathLike[str] | None = None
    drop_last_assistant: bool = False
    raw: bool = False
    image_column: str | None = None
    images_from: Sequence[str | PathLike[str]] | None = None
    preview: int | None = None
    json: bool = False

    # Which rows belong to the run.
    where: str | None = None
    sample: int | None = None
    shard: str | None = None
    limit: int | None = None
    dedupe: bool = False

    # What is written.
    output: str | None = None
    output_prefix: str | None = None
    text: bool = False
    expand: bool = False
    format: str | None = None
    state: str | PathLike[str] | None = None
    state_copy: str | PathLike[str] | None = field(default=None, repr=False)

    # How the run is worked on.
    restart: bool = False
    extend: bool = False
    retry: str | Sequence[str] | None = None
    max_concurrency: int | None = None
    executor: str | None = None
    workers: int | None = None
    batch: bool = False
    wait: float | None = None
    finish_online: bool = False
    max_tokens_total: int | None = None
    max_cost: float | None = None
    max_failures: int | None = None
    metrics: str | PathLike[str] | None = None
    traceback: bool = False
    verbose: bool = False
    quiet: bool = False
    estimate: bool = False

    @property
    def chooses(self) -> bool:
        """Whether it is said which rows belong to the run."""
        return bool(self.where is not None or self.sample or self.shard or self.limit or self.dedupe)

    @property
    def prompt_sources(self) -> list[str]:
        """The options that say what a row's prompt is and are given, in the command's words."""
        names = ("template", "template_file", "prompt_column", "messages_column")
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is not None]

    @property
    def has_writing(self) -> bool:
        """Whether something is said about how the output is written."""
        return bool(self.output_prefix or self.text or self.expand or self.format or self.state)

    @property
    def has_ceiling(self) -> bool:
        return self.max_tokens_total is not None or self.max_cost is not None

    def is_offline(self, llm: LLM) -> bool:
        """Whether the run submits offline batches."""
        return self._wants_batch(llm) and not llm.orders_batches

    def is_in_order(self, llm: LLM) -> bool:
        """Whether the engine takes all rows at once, in an order of its own."""
        return self._wants_batch(llm) and llm.orders_batches

    def _wants_batch(self, llm: LLM) -> bool:
        return llm.use_offline_batch_generation or self.batch


# Each with its message and what to do. The first one that applies is reported.
_CONFLICTS: list[tuple[Callable[[Options], bool], str, str]] = [
    (
        lambda o: (o.input is None) == (o.prompt is None),
        "there is nothing to do",
        "give either INPUT, which is - for rows on standard input, or --prompt TEXT",
    ),
    (
        lambda o: (
            o.prompt is not None
            and bool(
                o.output
                or o.prompt_sources
                or o.drop_last_assistant
                or o.chooses
                or o.has_ceiling
                or o.estimate
                or o.preview
            )
        ),
        "--prompt prints what it generates",
        "leave out -o, --preview, --estimate, the ceilings, and the options about columns and rows",
    ),
    (
        lambda o: o.prompt is not None and o.has_writing,
        "--prompt prints a text, and writes no columns",
        "leave out --output-prefix, --text, --expand, --format and --state",
    ),
    (
        lambda o: o.metrics is not None and bool(o.prompt is not None or o.estimate or o.preview),
        "--metrics writes the progress of a run",
        "leave it out, or give INPUT and -o OUTPUT without --estimate and --preview",
    ),
    (
        lambda o: o.state_copy is not None and bool(o.prompt is not None or o.estimate or o.preview),
        "--state-copy copies the state of a run",
        "leave it out, or give INPUT and -o OUTPUT without --estimate and --preview",
    ),
    (
        lambda o: o.num_generations > 1 and (o.text or o.expand),
        "there is more than one text in a row, and --text and --expand are of one",
        "leave out them, or -n",
    ),
    (
        lambda o: o.format == BATCH and bool(o.output_prefix or o.text or o.expand),
        f"--format {BATCH} has the columns of the provider",
        "leave out --output-prefix, --text and --expand",
    ),
    (
        lambda o: o.output == "-" and o.format not in (None, "jsonl"),
        "standard output is JSONL",
        "leave out --format, or give -o FILE",
    ),
    (
        lambda o: o.output == "-" and (o.state is not None or o.state_copy is not None),
        "a run that prints its rows keeps no state",
        "leave out --state and --state-copy, or give -o FILE",
    ),
    (
        lambda o: o.prompt is not None and o.row_params,
        "--prompt is no row, which --row-params takes parameters from",
        "leave out --row-params, and give --param NAME=VALUE",
    ),
    (
        lambda o: o.prompt is not None and bool(o.image_column or o.images_from),
        "--prompt is no row, which has images",
        "leave out --image-column and --images-from",
    ),
    (
        lambda o: o.raw and o.image_column is not None,
        "a raw prompt has no images",
        "leave out --image-column, or --raw",
    ),
    (
        lambda o: len(o.prompt_sources) > 1,
        "a row has one prompt",
        "give one of --template, --template-file, --prompt-column and --messages-column",
    ),
    (
        lambda o: o.system is not None and o.system_file is not None,
        "a chat has one system message",
        "give --system or --system-file",
    ),
    (
        lambda o: o.raw and o.messages_column is not None,
        "a chat is no raw prompt",
        "leave out --raw, or --messages-column",
    ),
    (
        lambda o: (
            o.drop_last_assistant and (o.raw or any(name != "--messages-column" for name in o.prompt_sources))
        ),
        "--drop-last-assistant is for chats",
        "leave it out, or take the prompt from a column of chats",
    ),
    (
        lambda o: o.raw and o.schema is not None,
        "a raw prompt has no form of its own",
        "leave out --raw, or set the form of all answers with --set structured_output=…",
    ),
    (
        lambda o: o.json and o.preview is None,
        "--json is for --preview",
        "leave it out; -o OUTPUT.jsonl writes JSON",
    ),
    (
        lambda o: o.preview is not None and o.estimate,
        "--preview and --estimate say two things",
        "give one of them",
    ),
    (
        lambda o: o.estimate and _is_text(o.input, "-"),
        "what is read from standard input is gone afterwards",
        "give --estimate a file",
    ),
    (
        lambda o: (
            o.output == "-"
            and bool(o.restart or o.extend or o.dedupe or o.retry or o.batch or o.finish_online)
        ),
        "what was printed is not kept",
        "give -o OUTPUT.jsonl: only a run with an output file can be resumed",
    ),
    (
        lambda o: o.prompt is None and o.output is None and not o.estimate and o.preview is None,
        "no output is named",
        "give -o OUTPUT.jsonl, or -o - to print",
    ),
    (
        lambda o: o.output == "-" and o.sample is not None and _is_text(o.input, "-"),
        "a sample reads the input twice, and standard input is gone afterwards",
        "give a file, or -o OUTPUT.jsonl",
    ),
    (
        lambda o: o.extend and o.sample is not None,
        "a sample of an input to which rows were added is another sample",
        "leave out --extend, or --sample",
    ),
    (
        lambda o: o.extend and o.restart,
        "--restart begins anew, with the input as it is",
        "leave out --extend",
    ),
    (
        lambda o: o.llm is None and o.config is None and not default_backends().default_llm,
        "no LLM is named",
        "give --llm NAME; stillhouse list shows them",
    ),
    (
        lambda o: o.workers is not None and o.executor is None,
        "--workers requires an executor",
        "leave it out, or give --executor processes",
    ),
    (
        lambda o: o.prompt is not None and o.executor is not None,
        "--prompt generates once, without workers",
        "leave out --executor",
    ),
    (
        lambda o: o.quiet and o.verbose,
        "--quiet and --verbose exclude each other",
        "give one of them",
    ),
    (
        lambda o: o.batch and o.finish_online,
        "--finish-online ends the batches",
        "leave out --batch",
    ),
]

# The same for options that depend on the LLM, which is created and not loaded; {name} is how it was named.
_CONFLICTS_WITH_LLM: list[tuple[Callable[[Options, LLM], bool], str, str]] = [
    (
        lambda o, llm: llm.orders_batches and (o.wait is not None or o.finish_online),
        "{name} generates on this machine: it has no batch to wait for, and none to finish online",
        "leave out --wait and --finish-online; --batch takes all rows at once, and writes when they are done",
    ),
    (
        lambda o, llm: o.wait is not None and not (o.is_offline(llm) or o.finish_online),
        "there is no batch to wait for",
        "give --batch as well",
    ),
    (
        lambda o, llm: o.is_offline(llm) and "offline_batch" not in llm.capabilities,
        "{name} has no offline batches",
        "leave out --batch",
    ),
    (
        lambda o, llm: o.executor is not None and (o.is_offline(llm) or o.finish_online),
        "the provider generates an offline batch, without workers",
        "leave out --executor",
    ),
    (
        lambda o, llm: o.schema is not None and "json_schema" not in llm.capabilities,
        "{name} cannot hold its answers to a JSON schema",
        "leave out --schema, or choose a backend with the capability json_schema",
    ),
    (
        lambda o, llm: o.has_ceiling and o.is_offline(llm) and not o.finish_online,
        "a batch reports its usage only when it is done, so a ceiling cannot be enforced",
        "leave out --max-tokens-total and --max-cost; --estimate says what it takes at most",
    ),
]


def check_options(options: Options) -> None:
    """Reject options that exclude each other.

    Raises:
        ConfigurationError: there are such options.
    """
    for applies, message, hint in _CONFLICTS:
        if applies(options):
            raise ConfigurationError(message, hint=hint)
    if options.format is not None and options.format not in FORMATS:
        raise ConfigurationError(
            f"there is no format {options.format!r} of outputs", hint=near_matches(options.format, FORMATS)
        )


def check_llm(options: Options, llm: LLM) -> None:
    """Reject options that do not go with the LLM.

    Raises:
        ConfigurationError: there are such options.
    """
    name = options.llm if isinstance(options.llm, str) else options.config or type(llm).__name__
    for applies, message, hint in _CONFLICTS_WITH_LLM:
        if applies(options, llm):
            raise ConfigurationError(message.format(name=name), hint=hint)


# The names of options that the command has in another way.
_RENAMED = {"set": "fields", "o": "output", "n": "num_generations"}

_OPTION = re.compile(r"(?<![\w-])--?([a-z][a-z-]*)(?: ([A-Z][A-Z:.a-z]*)\b)?")


def in_python(text: str) -> str:
    """Return a message that names options of the command, with their names in Python instead."""

    def renamed(found: re.Match[str]) -> str:
        name = found[1].replace("-", "_")
        name = _RENAMED.get(name, name)
        option = Options.__dataclass_fields__.get(name)
        if option is None:
            return found[0]
        if found[2]:
            return f"{name}={found[2]}"
        return f"{name}=True" if option.type == "bool" else name

    return _OPTION.sub(renamed, text)


def _is_text(value: Any, text: str) -> bool:
    """Whether an input, which may be several names, is this one."""
    return value == text if isinstance(value, str) else isinstance(value, tuple) and value == (text,)
