"""The hooks that a plugin in the entry-point group `stillhouse.hooks` may implement.

A plugin is a module or an object whose functions are marked with `stillhouse.hookimpl` and named
as below. It may take fewer arguments than a specification lists. It must import light: hooks are
imported when the first run starts, whatever backend it uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import pyarrow as pa

    from stillhouse.errors import GenerationError
    from stillhouse.llm import LLM
    from stillhouse.protocols import RowReader, RowWriter
    from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = [
    "PROJECT",
    "after_generate",
    "before_generate",
    "hookimpl",
    "hookspec",
    "open_reader",
    "open_writer",
    "output_path",
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
) -> GenerateOutput | None:
    """Answer an input instead of the LLM, or return `None` to let it generate.

    The first plugin that answers wins. The answer must hold `num_generations` generations; one
    that does not is ignored with a warning.

    Args:
        llm: the loaded LLM.
        input: the input; not to be mutated.
        num_generations: how many generations were asked for.
        arguments: the generation parameters in force, one dict for all inputs of a call; not to be
            mutated.
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
) -> None:
    """Observe the result of an input: its output or its error.

    Args:
        llm: the loaded LLM.
        input: the input; not to be mutated.
        num_generations: how many generations were asked for.
        arguments: the generation parameters in force.
        output: the output, not to be mutated; `None` if there is an error.
        error: the error; `None` if there is an output.
        from_hook: whether a plugin's `before_generate` gave the output, so that nothing was paid.
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
def open_writer(target: str, schema: pa.Schema | None) -> RowWriter | None:
    """Open a target for rows, or return `None` if it is not one of this plugin's.

    The first plugin that opens it wins. A `ConfigurationError` says that it cannot be written.

    Args:
        target: what the user gave as OUTPUT.
        schema: the types of the input's columns, where its format has them.
    """


@hookspec(firstresult=True)
def output_path(target: str) -> Path | None:
    """Return the final path of one of this plugin's targets, or `None` for any other target.

    The state of the run is kept beside that path, as `PATH.run.db`, also for a target that is on no
    disk. Nothing may be opened or made: `stillhouse status` asks too.

    Args:
        target: what the user gave as OUTPUT.
    """
