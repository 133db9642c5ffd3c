"""The hooks that a plugin in the entry-point group `stillhouse.hooks` may implement.

A plugin is a module or an object whose functions are marked with `stillhouse.hookimpl` and named
as below. It may take fewer arguments than a specification lists. It must import light: hooks are
imported when the first run starts, whatever backend it uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import pyarrow as pa
    from pydantic import BaseModel

    from stillhouse.errors import GenerationError
    from stillhouse.llm import LLM
    from stillhouse.protocols import Executor, OutputColumns, Row, RowReader, RowWriter, RunInfo, RunSummary
    from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = [
    "PROJECT",
    "after_generate",
    "before_generate",
    "configure",
    "hookimpl",
    "hookspec",
    "make_executor",
    "open_reader",
    "open_writer",
    "output_path",
    "run_finished",
    "run_started",
    "settings_model",
]

PROJECT = "stillhouse"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def before_generate(
    llm: LLM,
    input: FormattedInput,
    num_generations: int,
    arguments: Mapping[str, Any],
    row: Row | None,
) -> GenerateOutput | None:
    """Answer an input instead of the LLM, or return `None` to let it generate.

    The first plugin that answers wins. The answer must hold `num_generations` generations; one
    that does not is ignored with a warning.

    Args:
        llm: the loaded LLM.
        input: the input, a copy for this plugin.
        num_generations: how many generations were asked for.
        arguments: the generation parameters in force, one read-only dict for all inputs of a call that have
            the same ones.
        row: the row that the input was made of, a copy for this plugin; `None` outside a bulk run.
    """


@hookspec
def after_generate(
    llm: LLM,
    input: FormattedInput,
    num_generations: int,
    arguments: Mapping[str, Any],
    output: GenerateOutput | None,
    error: GenerationError | None,
    from_hook: bool,
    row: Row | None,
    seconds: float,
) -> None:
    """Observe the result of an input: its output or its error.

    A row that cannot be read, or of which no input can be made, has a result too: an error of the kind
    `invalid_input`, with `None` as its input.

    Args:
        llm: the loaded LLM.
        input: the input, a copy for this plugin; `None` if there is none.
        num_generations: how many generations were asked for.
        arguments: the generation parameters in force, as `before_generate` is shown them.
        output: the output, a copy for this plugin; `None` if there is an error.
        error: the error, likewise; `None` if there is an output.
        from_hook: whether a plugin's `before_generate` gave the output, so that nothing was paid.
        row: the row that the input was made of, a copy for this plugin; `None` outside a bulk run.
        seconds: how long the call took, with its retries; that of the whole list where a list was one call,
            and 0 where nothing was called.
    """


@hookspec
def run_started(run: RunInfo) -> None:
    """Learn that a process begins to work on a bulk run: all checks have passed, no row was read yet.

    A run that is complete already, and a direct use of an LLM, begin nothing.

    Args:
        run: the run.
    """


@hookspec
def run_finished(summary: RunSummary) -> None:
    """Learn how that work ended: what was done, and whether the run is complete.

    It is called once after each `run_started`, also after an error or an interrupt; not if the process is
    killed.

    Args:
        summary: what this process did.
    """


@hookspec(firstresult=True)
def make_executor(
    name: str, address: str | None, llm: LLM, workers: int | None
) -> AbstractContextManager[Executor] | None:
    """Return an executor, or `None` if the name is not one of this plugin's.

    The first plugin that returns one wins; `processes` is built in. Nothing may be started yet: the executor
    starts its workers when it is entered, before the first row, and ends them when it is left. A
    `ConfigurationError` says that the address or the LLM cannot be used.

    Args:
        name: the name that the user gave, as `NAME` or `NAME:ADDRESS`.
        address: the address, or `None` if there is none.
        llm: the LLM, which is not loaded. The workers have copies of it.
        workers: how many workers; `None` where the user did not say.
    """


@hookspec(firstresult=True)
def open_reader(source: str) -> RowReader | None:
    """Open a source of rows, or return `None` if it is not one of this plugin's.

    The first plugin that opens it wins, also over the formats of Stillhouse. A `ConfigurationError`
    says that the source is this plugin's and cannot be read. If the reader has an attribute `places`, the
    paths that it reads on this machine, a run refuses an output that would replace one of them.

    Args:
        source: what the user gave as INPUT, such as a path or `name:…`.
    """


@hookspec(firstresult=True)
def open_writer(target: str, schema: pa.Schema | None, columns: OutputColumns | None) -> RowWriter | None:
    """Open a target for rows, or return `None` if it is not one of this plugin's.

    The first plugin that opens it wins. A `ConfigurationError` says that it cannot be written.

    Args:
        target: what the user gave as OUTPUT.
        schema: the types of the input's columns, where its format has them.
        columns: the columns that the output adds to those of the input, for a format that needs their names
            or types before it has all rows.
    """


@hookspec(firstresult=True)
def output_path(target: str) -> Path | None:
    """Return the final path of one of this plugin's targets, or `None` for any other target.

    The state of the run is kept beside that path, as `PATH.run.db`, also for a target that is on no
    disk. Nothing may be opened or made: `stillhouse status` asks too.

    Args:
        target: what the user gave as OUTPUT.
    """


@hookspec
def settings_model() -> type[BaseModel]:  # type: ignore[empty-body]
    """Return the pydantic model of this plugin's settings, for `configure` and for `stillhouse show`.

    Every field has a description, and a default if the plugin can do without the setting. Import pydantic
    in this function: hooks must import light.
    """


@hookspec
def configure(settings: BaseModel) -> None:
    """Take this plugin's settings: those of the table `[hooks.NAME]` of the user's config file, checked.

    It is called before any other hook of the plugin, also where there is no table; again when hooks are
    loaded again. A `ConfigurationError` says which setting cannot be used; nothing is generated then.

    Args:
        settings: an instance of what `settings_model` returns.
    """
