"""The hooks that a plugin in the entry-point group `stillhouse.hooks` may implement.

A plugin is a module or an object whose functions have the names below and are marked with
`stillhouse.hookimpl`. A function may take fewer arguments than its specification. A plugin must be light
to import: hooks are imported when the first run starts, whatever backend it uses.
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
    """Answer an input instead of the LLM, or return `None` to let the LLM generate.

    The first answer wins. It must have `num_generations` generations; any other answer is ignored with a
    warning.

    Args:
        llm: the loaded LLM.
        input: the input, a copy for this plugin.
        num_generations: the requested number of generations.
        arguments: the generation parameters that apply. Inputs of a call with the same parameters share one
            read-only dict.
        row: the row that the input was made from, a copy for this plugin; `None` outside a bulk run.
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

    A row that cannot be read or converted to an input has a result too: an error of the kind
    `invalid_input`, with `None` as its input.

    Args:
        llm: the loaded LLM.
        input: the input, a copy for this plugin; `None` if there is none.
        num_generations: the requested number of generations.
        arguments: the generation parameters that apply, as in `before_generate`.
        output: the output, a copy for this plugin; `None` if there is an error.
        error: the error, a copy for this plugin; `None` if there is an output.
        from_hook: whether the output came from a plugin's `before_generate`, so that it cost nothing.
        row: the row that the input was made from, a copy for this plugin; `None` outside a bulk run.
        seconds: how long the call took, with its retries; that of the whole list where a list was one call,
            and 0 where nothing was called.
    """


@hookspec
def run_started(run: RunInfo) -> None:
    """Called when a process starts to work on a bulk run: all checks have passed, and no row was read yet.

    It is not called for a run that is already complete, or if an LLM is used without a run.

    Args:
        run: the run.
    """


@hookspec
def run_finished(summary: RunSummary) -> None:
    """Called when the work of a process on a bulk run ends.

    It is called once after each `run_started`, also after an error or an interrupt, but not if the process
    is killed.

    Args:
        summary: the work of this process, and whether the run is complete.
    """


@hookspec(firstresult=True)
def make_executor(
    name: str, address: str | None, llm: LLM, workers: int | None
) -> AbstractContextManager[Executor] | None:
    """Return an executor, or `None` if the name is not one of this plugin's.

    The first plugin that returns one wins; `processes` is built in. Nothing may be started yet: the executor
    starts its workers when it is entered, before the first row, and ends them when it is left. Raise a
    `ConfigurationError` if the address or the LLM cannot be used.

    Args:
        name: the name of the executor, the part of `--executor NAME:ADDRESS` before the colon.
        address: the part after the colon; `None` without a colon. It is never empty.
        llm: the LLM, which is not loaded. The workers have copies of it.
        workers: the number of workers, at least 1; `None` if the user gave none.
    """


@hookspec(firstresult=True)
def open_reader(source: str) -> RowReader | None:
    """Open a source of rows, or return `None` if the plugin does not handle it.

    The first plugin that opens the source wins, also over Stillhouse's own formats. Raise a
    `ConfigurationError` if the plugin handles the source but cannot read it. A reader may have an attribute
    `places`, the paths that it reads on this machine: a run refuses an output that would replace one.

    Args:
        source: the INPUT that the user gave, such as a path or `name:…`.
    """


@hookspec(firstresult=True)
def open_writer(target: str, schema: pa.Schema | None, columns: OutputColumns | None) -> RowWriter | None:
    """Open a target for rows, or return `None` if the plugin does not handle it.

    The first plugin that opens the target wins. Raise a `ConfigurationError` if it cannot be written.

    Args:
        target: the OUTPUT that the user gave.
        schema: the types of the input's columns, if its format has types.
        columns: the columns that the output adds to those of the input, for a format that needs their names
            or types before it has all rows.
    """


@hookspec(firstresult=True)
def output_path(target: str) -> Path | None:
    """Return the final path of a target that the plugin handles, or `None` for any other target.

    The state of the run is next to that path, as `PATH.run.db`, also if the target is not a file. The hook
    must not open or create anything: `stillhouse status` calls it too.

    Args:
        target: the OUTPUT that the user gave.
    """


@hookspec
def settings_model() -> type[BaseModel]:  # type: ignore[empty-body]
    """Return the pydantic model of this plugin's settings, for `configure` and for `stillhouse show`.

    Every field has a description, and a default unless the setting is required. Import pydantic in this
    function: hooks must be light to import.
    """


@hookspec
def configure(settings: BaseModel) -> None:
    """Receive this plugin's settings: the checked table `[hooks.NAME]` of the user's config file.

    It is called before any other hook of the plugin, also if there is no table, and again if hooks are
    reloaded. Raise a `ConfigurationError` for a setting that cannot be used; nothing is generated then.

    Args:
        settings: an instance of the model that `settings_model` returns.
    """
