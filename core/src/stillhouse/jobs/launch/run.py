"""`run`, `arun` and `estimate`: what `stillhouse generate` does, from Python.

Over 300 lines: most of them are the options of a run, each a keyword with its documentation.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, ParamSpec

from stillhouse._defaults import default_backends
from stillhouse._execution.stopping import Stop
from stillhouse._wording import number_of
from stillhouse.errors import ConfigurationError, StillhouseError, near_matches
from stillhouse.jobs.formats.spools import spool_of
from stillhouse.jobs.launch.bar import PythonView, asked_to_stop
from stillhouse.jobs.launch.given import python_call
from stillhouse.jobs.launch.llms import check_fields, named, new_llm
from stillhouse.jobs.launch.options import WAIT_SECONDS, Options, check_llm, check_options, in_python
from stillhouse.jobs.launch.preparing import prepare
from stillhouse.jobs.launch.result import Run, TemporaryFolder
from stillhouse.jobs.launch.work import Ended, unusable_file, work
from stillhouse.jobs.reporting.progress import Progress
from stillhouse.jobs.runs.command import Command
from stillhouse.jobs.runs.estimate import Estimate
from stillhouse.jobs.runs.estimate import estimate as estimate_command
from stillhouse.jobs.runs.hopeless import FailuresError
from stillhouse.llm import LLM

__all__ = [
    "arun", "estimate", "in_python_words", "options_of", "read_options", "refuse_options_of_run", "run",
]  # fmt: skip

P = ParamSpec("P")


def run(
    input: Any,
    *,
    llm: str | LLM | None = None,
    output: str | PathLike[str] | None = None,
    prompt_column: str | None = None,
    messages_column: str | None = None,
    template: str | None = None,
    template_file: str | PathLike[str] | None = None,
    system: str | None = None,
    system_file: str | PathLike[str] | None = None,
    drop_last_assistant: bool = False,
    raw: bool = False,
    image_column: str | None = None,
    images_from: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    output_prefix: str | None = None,
    text: bool = False,
    expand: bool = False,
    format: str | None = None,
    state: str | PathLike[str] | None = None,
    state_copy: str | PathLike[str] | None = None,
    num_generations: int = 1,
    param: Mapping[str, Any] | None = None,
    row_params: bool = False,
    schema: str | PathLike[str] | Mapping[str, Any] | type | None = None,
    fields: Mapping[str, Any] | None = None,
    config: str | PathLike[str] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    max_concurrency: int | None = None,
    executor: str | None = None,
    workers: int | None = None,
    where: str | None = None,
    sample: int | None = None,
    shard: str | None = None,
    limit: int | None = None,
    dedupe: bool = False,
    restart: bool = False,
    extend: bool = False,
    retry: str | Sequence[str] | None = None,
    batch: bool = False,
    wait: float | bool | None = None,
    finish_online: bool = False,
    max_tokens_total: int | None = None,
    max_cost: float | None = None,
    max_failures: int | None = None,
    metrics: str | PathLike[str] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    show_bar: bool = True,
    **parameters: Any,
) -> Run:
    """Generate an answer for every row of an input, and write the rows with their answers.

    It does what `stillhouse generate` does; the command's options are keywords. Finished rows are saved next
    to the output at once. Repeat the call to resume: no finished row is generated again. A failed row is
    data, not an exception. An interrupt waits for the rows in flight and then raises `KeyboardInterrupt`; a
    second interrupt does not wait.

    Nothing is printed. The logger `stillhouse.jobs` reports which columns became the prompt. A terminal and a
    notebook show a progress bar.

    Args:
        input: a path, a folder, a glob, an address such as `s3://…`, or a source of a plugin, such as
            `datasets:…`; a list of `pathlib.Path`; a list or a generator of rows, each a dict of its columns,
            a text or a list of messages; a table with the Arrow stream protocol, such as a pandas or polars
            frame; a `datasets.Dataset`. An input that is not a file is saved next to the output during the
            run.
        llm: `NAME`, `NAME:MODEL`, an alias, or an LLM; a loaded LLM stays loaded. `None` means the default
            LLM of the user's config file.
        output: the .jsonl, .csv, .tsv or .parquet file to write, or a target of a plugin. Without it, the
            state is temporary, and the rows are available as long as the result exists.
        prompt_column: the column with the prompt. By default, the prompt is the first of the
            columns `messages`, `conversations`, `prompt`, and `instruction` with `input`.
        messages_column: the column with the chat.
        template: a Jinja2 template that makes the prompt from the columns of a row.
        template_file: a file with the template.
        system: a system message for chats that do not begin with one.
        system_file: a file with the system message.
        drop_last_assistant: leave out the assistant's answer at the end of a chat.
        raw: send the text as a raw prompt, without a chat template.
        image_column: the column with the images of a row: a path, bytes, a web address, or a list of these.
        images_from: the folder, or folders, from which image files may be read.
        output_prefix: a prefix for the names of the columns that the output adds, so that none clashes with a
            column of the input.
        text: write the text itself instead of a list with one text; requires one generation.
        expand: also write the fields of an answer that is a JSON object as columns; requires one generation.
        format: `jsonl`, `csv`, `tsv`, `parquet` or `openai-batch`, whatever the suffix of the output.
        state: the path of the run's state; `OUTPUT.run.db` by default. With the state of a finished run,
            another output is written, and nothing is generated again.
        state_copy: an address such as `s3://bucket/run.db.gz` to which the state is copied about once a
            minute. On another machine, the same call without a state resumes from that copy.
        num_generations: number of generations for each row.
        param: generation parameters, for those that have the name of an option of this function.
        row_params: read a row's generation parameters, `tools` and `structured_output` from its columns of
            these names; they win over those of the run.
        schema: the form of the answers: a file with a JSON schema, the fields in a line, such as
            `name, age int`, the schema itself, or a pydantic class.
        fields: fields of the LLM, if `llm` is a name.
        config: a JSON or YAML file with the saved settings of an LLM.
        delimiter: the separator of the fields of CSV and TSV, instead of the detected one: a character, or
            `comma`, `semicolon`, `tab`, `pipe`.
        encoding: the encoding of text, instead of the detected one.
        max_concurrency: maximum number of rows in flight.
        executor: generate with several workers: `'processes'` on this machine, or those of a plugin, as
            `NAME` or `NAME:ADDRESS`.
        workers: number of workers of the executor; by default one for each core.
        where: process only the rows for which this Jinja2 expression over their columns is true.
        sample: of these, process only N random rows, the same ones each time.
        shard: of these, process only the I-th of N parts, `'I/N'`; `stillhouse join` joins the outputs.
        limit: process only the first N rows.
        dedupe: generate once for rows with the same request, and give each of them the result.
        restart: discard an earlier run of this output, and replace the output.
        extend: resume although rows were added to the input; finished rows are kept.
        retry: generate the rows again that failed with these kinds, or `all`.
        batch: generate through the provider's offline batches, or, with an engine on this machine, in one
            batch at once.
        wait: wait for the batches, polling every N seconds; `True` means 60.
        finish_online: cancel unfinished batches, keep their results, and generate the other rows online.
        max_tokens_total: stop before the run uses more tokens than this, input and output together.
        max_cost: stop before the run costs more than this, in USD.
        max_failures: stop once N rows failed in this call; 0 means never. By default, a hopeless run stops:
            one whose first rows all fail with an error that no row causes.
        metrics: a file for Prometheus with the progress of the run, replaced every few seconds.
        on_progress: called about twice a second from another thread, with a `Progress`, whose text is a line.
        show_bar: whether to show a bar if `on_progress` is not given.
        parameters: generation parameters of the LLM, such as `temperature`.

    Raises:
        ConfigurationError: an option has a wrong value, the input or the output cannot be used, or the
            run was started with other options.
        UnknownLLMError, PluginError: the LLM is not installed or unusable.
        GenerationError: an error that every further row would cause, such as a refused key.
        StillhouseError: the run is hopeless, or too many rows failed. If it was hopeless, the same call
            generates the failed rows again.
        StoreError: another process works on the run, or its state cannot be used.
        KeyboardInterrupt: the run was interrupted; finished rows are kept.

    Examples:
        >>> rows = [{"id": 1, "prompt": "Name a river in Peru."}]
        >>> run = stillhouse.run(rows, llm="echo", show_bar=False)
        >>> [row["generations"] for row in run]
        [['Name a river in Peru.']]
    """
    given = locals()
    folder = None
    with contextlib.ExitStack() as resources, in_python_words():
        if output is None:
            if state_copy is not None:
                raise ConfigurationError(
                    "--state-copy is for a run that can be resumed, and this one has no output",
                    hint="give --output",
                )
            folder = TemporaryFolder()
            resources.callback(folder.remove)
            output = folder.path / f"output.{format or _suffix(input)}"
        options = options_of(given, output)
        generator, command = read_options(options)
        ended = work(generator, command, PythonView(on_progress, show_bar))
        found = _result(generator, command, ended, folder)
        resources.pop_all()
        return found


def estimate(
    input: Any,
    *,
    llm: str | LLM | None = None,
    output: str | PathLike[str] | None = None,
    prompt_column: str | None = None,
    messages_column: str | None = None,
    template: str | None = None,
    template_file: str | PathLike[str] | None = None,
    system: str | None = None,
    system_file: str | PathLike[str] | None = None,
    drop_last_assistant: bool = False,
    raw: bool = False,
    image_column: str | None = None,
    images_from: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    output_prefix: str | None = None,
    text: bool = False,
    expand: bool = False,
    format: str | None = None,
    state: str | PathLike[str] | None = None,
    num_generations: int = 1,
    param: Mapping[str, Any] | None = None,
    row_params: bool = False,
    schema: str | PathLike[str] | Mapping[str, Any] | type | None = None,
    fields: Mapping[str, Any] | None = None,
    config: str | PathLike[str] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    where: str | None = None,
    sample: int | None = None,
    shard: str | None = None,
    limit: int | None = None,
    dedupe: bool = False,
    restart: bool = False,
    extend: bool = False,
    retry: str | Sequence[str] | None = None,
    batch: bool = False,
    **parameters: Any,
) -> Estimate:
    """Estimate the remaining work of a run. Nothing is loaded, sent or written. See `run` for the arguments.

    Raises:
        ConfigurationError, UnknownLLMError, PluginError, StoreError: as `run`.
    """
    given = locals()
    refuse_options_of_run(
        parameters,
        "stillhouse.estimate has no option {!r}, which does not change an estimate",
        "leave it out",
    )
    with in_python_words():
        options = options_of(given, output, estimate=True)
        generator, command = read_options(options)
        try:
            return estimate_command(generator, command)
        except OSError as error:
            raise unusable_file(error) from None


def _like(_: Callable[P, Run]) -> Callable[[Callable[..., Any]], Callable[P, Coroutine[Any, Any, Run]]]:
    """Give a function the parameters of another one, for type checkers."""
    return lambda function: function


@_like(run)
async def arun(*args: Any, **kwargs: Any) -> Run:
    """Do the same as `run`, for a coroutine: the work is done in its own thread, and the loop is free.

    Cancel it to stop the run once the rows in flight are finished; finished rows are kept.
    """
    stop = Stop()
    context = copy_context()
    context.run(asked_to_stop.set, stop)
    with ThreadPoolExecutor(1, "stillhouse-run") as thread:
        call = partial(context.run, run, *args, **kwargs)
        future = asyncio.get_running_loop().run_in_executor(thread, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.request()
            await asyncio.wait([future])
            with contextlib.suppress(BaseException):  # the interrupt, or another error that ended the run
                future.result()
            raise


@contextlib.contextmanager
def in_python_words() -> Iterator[None]:
    """Rename the command's options in error messages to the keywords of Python."""
    try:
        yield
    except (ConfigurationError, FailuresError) as error:
        error.message, error.hint = in_python(error.message), in_python(error.hint)
        error.args = (error.message,)
        raise


def read_options(options: Options) -> tuple[LLM, Command]:
    """Return the LLM of the options, which this function does not load, and the command."""
    _check_values(options)
    check_options(options)
    llm = options.llm if isinstance(options.llm, LLM) else _new(options)
    declared = type(llm).generation_parameters()
    for name in options.param:
        if name not in declared.parameters and not declared.open:
            known = {*declared.parameters, *inspect.signature(run).parameters}
            raise ConfigurationError(
                f"{type(llm).__name__} has no generation parameter {name!r}, and a run no such option",
                hint=near_matches(name, sorted(known)),
            )
    arguments = declared.check(options.param, type(llm).__name__)
    check_llm(options, llm)
    return llm, prepare(options, llm, arguments, python_call(options))


def _new(options: Options) -> LLM:
    registry = default_backends()
    cls, settings = named(registry, options.llm, options.config)
    fields = dict(options.fields)
    if options.max_concurrency is not None:
        fields["max_concurrency"] = options.max_concurrency
    check_fields(cls, settings["llm"], fields)
    return new_llm(registry, settings, fields)


def _check_values(options: Options) -> None:
    """Reject the values that the command's parser would reject, before anything is loaded."""
    if isinstance(options.llm, LLM) and (options.fields or options.config or options.max_concurrency):
        raise ConfigurationError(
            "the LLM is given, and so are fields of one", hint="set them where the LLM is created"
        )
    if not isinstance(options.llm, (str, LLM, type(None))):
        raise ConfigurationError(
            f"llm is of the type {type(options.llm).__name__}", hint="give 'NAME', 'NAME:MODEL' or an LLM"
        )
    if options.output == "-" or (isinstance(options.input, (str, PathLike)) and str(options.input) == "-"):
        raise ConfigurationError(
            "'-' is standard input or output, which the command has", hint="give a path, or rows"
        )
    for name in ("num_generations", "max_concurrency", "workers", "sample", "limit", "max_tokens_total"):
        value = getattr(options, name)
        if value is not None and (type(value) is not int or value < 1):
            raise ConfigurationError(f"{name} is {value!r}", hint="give a whole number of at least 1")
    if options.max_failures is not None and (
        type(options.max_failures) is not int or options.max_failures < 0
    ):
        raise ConfigurationError(
            f"max_failures is {options.max_failures!r}", hint="give a whole number, or 0 to stop at none"
        )
    for name, example in (("where", "'score > 3'"), ("shard", "'1/4'")):
        value = getattr(options, name)
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(f"{name} is {value!r}", hint=f"give a text, such as {example}")
    for name in (
        "prompt_column", "messages_column", "template", "system", "image_column", "output_prefix", "format",
        "delimiter", "encoding", "executor",
    ):  # fmt: skip
        value = getattr(options, name)
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(f"{name} is of the type {type(value).__name__}", hint="give a text")
    for name in ("template_file", "system_file", "state", "state_copy"):
        value = getattr(options, name)
        if value is not None and not isinstance(value, (str, PathLike)):
            raise ConfigurationError(f"{name} is of the type {type(value).__name__}", hint="give a path")
    retry = "" if options.retry is None else options.retry
    if not isinstance(retry, str) and not (
        isinstance(retry, (list, tuple, set, frozenset)) and all(isinstance(kind, str) for kind in retry)
    ):
        raise ConfigurationError(f"retry is {retry!r}", hint="give 'all', or a list of kinds of errors")
    for name in ("wait", "max_cost"):
        value = getattr(options, name)
        if value is not None and (type(value) not in (int, float) or not 0 < value < float("inf")):
            raise ConfigurationError(f"{name} is {value!r}", hint="give a number above 0")


def refuse_options_of_run(parameters: Mapping[str, Any], problem: str, hint: str) -> None:
    """Refuse options of `run` among generation parameters, where the caller has no such options.

    Args:
        parameters: what the caller took for generation parameters.
        problem: the message, with `{!r}` for the name of the option.
        hint: what to do.

    Raises:
        ConfigurationError: there is one.
    """
    for name in inspect.signature(run).parameters:
        if name in parameters:
            raise ConfigurationError(problem.format(name), hint=hint)


def options_of(given: Mapping[str, Any], output: str | PathLike[str] | None, **more: Any) -> Options:
    """Return the options among the keywords that a function was given.

    Raises:
        ConfigurationError: one that is on or off is something else than true or false.
    """
    for name, value in given.items():
        option = Options.__dataclass_fields__.get(name)
        is_flag = name == "show_bar" or (option is not None and option.type == "bool")
        if is_flag and not isinstance(value, bool):
            raise ConfigurationError(f"{name} is {value!r:.60}", hint="give True or False")
    options = {name: value for name, value in given.items() if name in Options.__dataclass_fields__}
    return Options(
        **{
            **options,
            "output": None if output is None else str(output),
            "param": _together(given["param"], given["parameters"]),
            "fields": given["fields"] or {},
            "config": None if given["config"] is None else Path(given["config"]),
            "wait": _seconds(given.get("wait")),
            "images_from": _several(given["images_from"]),
            **more,
        }
    )


def _together(param: Mapping[str, Any] | None, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    twice = sorted({*(param or ())} & {*parameters})
    if twice:
        raise ConfigurationError(f"{twice[0]} is given twice, as a keyword and in param", hint="give it once")
    return {**(param or {}), **parameters}


def _several(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]] | None,
) -> Sequence[str | PathLike[str]] | None:
    return [paths] if isinstance(paths, (str, PathLike)) else paths


def _seconds(wait: float | bool | None) -> float | None:
    if isinstance(wait, bool):
        return WAIT_SECONDS if wait else None
    return wait


def _suffix(input: Any) -> str:
    """Return the format of an output that nobody names: one that keeps the types of a table."""
    if isinstance(input, (str, PathLike)):
        return "parquet" if str(input).lower().endswith(".parquet") else "jsonl"
    return "parquet" if spool_of(input).has_types else "jsonl"


def _result(llm: LLM, command: Command, ended: Ended, folder: TemporaryFolder | None) -> Run:
    """Return the result of a run, or raise what ended it."""
    if ended.problem is not None:
        raise ended.problem
    if ended.outcome == "interrupted":
        kept = (
            ""
            if folder or ended.summary is None
            else f": {number_of(ended.summary.rows, 'finished row', 'is/are')} kept"
        )
        raise KeyboardInterrupt(f"the run was interrupted{kept}; the same call resumes it")
    assert ended.outcome != "stopped"
    if ended.summary is None:
        raise StillhouseError("the state of the run cannot be read")
    return Run(ended.outcome, command, ended.summary, llm.registry.hooks(), folder)
