"""`prepare`: the command of some options, which were checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.reading import Reading
from stillhouse.jobs.formats.spools import Spool, StdinSpool, spool_of
from stillhouse.jobs.formats.writing import Writing, schema_of
from stillhouse.jobs.launch.formatting import files_of, formatting_of
from stillhouse.jobs.launch.given import without_secret_values
from stillhouse.jobs.launch.options import Options
from stillhouse.jobs.runs.command import Command, parse_kinds
from stillhouse.jobs.selection.choosing import Choice, parse_shard
from stillhouse.jobs.selection.conditions import Condition
from stillhouse.jobs.sources.names import names_of
from stillhouse.jobs.sources.remote import RemoteSpool, is_remote
from stillhouse.jobs.spending.budget import Ceiling
from stillhouse.llm import LLM

__all__ = ["prepare"]


def prepare(
    options: Options, llm: LLM, arguments: dict[str, Any], given: Sequence[Sequence[str]] = ()
) -> Command:
    """Return the command of some options, which were checked.

    Args:
        options: what the run is asked to do.
        llm: the LLM that they name.
        arguments: the generation parameters, in the types that the backend declares.
        given: the command in parts, as it was given.

    Raises:
        ConfigurationError: an option has a wrong value.
    """
    is_offline, in_order = options.is_offline(llm), options.is_in_order(llm)
    reading = Reading.of(options.delimiter, options.encoding)
    names = None if options.input is None else names_of(options.input)
    spool: Spool | None = None
    if names is None and options.input is not None:
        spool = spool_of(options.input)
    elif names == ("-",) and options.output != "-" and options.preview is None:
        spool = StdinSpool(reading)
    elif names is not None and any(is_remote(name, llm.registry.hooks()) for name in names):
        spool = RemoteSpool(names, reading)
    formatter, formatting = formatting_of(options, llm, arguments)
    return Command(
        source=("" if options.input is None else type(options.input).__name__)
        if names is None
        else str(names),
        names=names,
        reading=reading,
        output="-" if options.output is None else str(options.output),
        formatter=formatter,
        formatting={**formatting, **reading.said()},
        num_generations=options.num_generations,
        arguments=arguments,
        choice=_choice(options),
        extend=options.extend,
        restart=options.restart,
        retry=[] if options.retry is None else parse_kinds(options.retry),
        offline=is_offline and not options.finish_online,
        in_order=in_order,
        wait=options.wait or (llm.offline_batch_generation_block_until_done if is_offline else None),
        finish_online=options.finish_online,
        ceiling=Ceiling(
            llm, arguments, options.max_tokens_total, options.max_cost, per_row=options.row_params
        )
        if options.has_ceiling
        else None,
        max_failures=options.max_failures,
        executor=options.executor,
        workers=options.workers,
        traceback=options.traceback,
        verbose=options.verbose,
        given=without_secret_values(given, llm, arguments),
        reads=files_of(options),
        writing=Writing(
            format=options.format,
            prefix=options.output_prefix or "",
            text=options.text,
            expand=options.expand,
            schema=schema_of(llm, formatter.form) if options.expand else None,
        ),
        state=_state(options),
        state_copy=_state_copy(options),
        metrics=None if options.metrics is None else Path(options.metrics),
        spool=spool,
    )


def _state(options: Options) -> Path | None:
    """Return where the state of the run is, if that is said.

    Raises:
        ConfigurationError: there can be no file.
    """
    if options.state is None:
        return None
    path = Path(options.state)
    if not str(options.state) or path.is_dir():
        what = f"{path} is a folder" if str(options.state) else "it is empty"
        raise ConfigurationError(f"--state: {what}", hint="give the path of a file, such as run.db")
    if not path.parent.is_dir():
        raise ConfigurationError(
            f"--state: there is no folder {path.parent}", hint="create it, or check the path"
        )
    return path


def _state_copy(options: Options) -> str | None:
    """Return the address of the copy of the state, if there is one.

    Raises:
        ConfigurationError: it is empty.
    """
    if options.state_copy is None:
        return None
    address = str(options.state_copy)
    if not address.strip() or "\0" in address:
        raise ConfigurationError(
            "--state-copy: it is not an address", hint="give one such as s3://bucket/run.db.gz"
        )
    return address


def _choice(options: Options) -> Choice:
    """Return which rows of the input belong to the run.

    Raises:
        ConfigurationError: an option has a wrong value.
    """
    return Choice(
        where=None if options.where is None else Condition(options.where),
        sample=options.sample,
        shard=None if options.shard is None else parse_shard(options.shard),
        limit=options.limit,
        dedupe=options.dedupe,
    )
