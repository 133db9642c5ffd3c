"""What lower floors need of higher ones, as protocols, so that they need not import them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from stillhouse.errors import GenerationError
    from stillhouse.typing import GenerateOutput

__all__ = ["Backends", "HookCalls", "Row", "RowReader", "RowWriter"]


class HookCalls(Protocol):
    """The installed hooks, as the code that calls them sees them.

    Attributes:
        before: whether any plugin implements `before_generate`.
        after: whether any plugin implements `after_generate`.
    """

    before: bool
    after: bool

    @property
    def empty(self) -> bool:
        """Whether no plugin implements either of them."""

    def before_generate(
        self, llm: Any, input: Any, num_generations: int, arguments: Mapping[str, Any]
    ) -> GenerateOutput | None:
        """The first answer of a plugin, or `None`."""

    def after_generate(
        self,
        llm: Any,
        input: Any,
        num_generations: int,
        arguments: Mapping[str, Any],
        result: GenerateOutput | GenerationError,
        from_hook: bool,
    ) -> None:
        """Show every plugin the result of an input."""

    def open_reader(self, source: str) -> RowReader | None:
        """The reader of the first plugin that opens the source, or `None`."""

    def open_writer(self, target: str, schema: pa.Schema | None = None) -> RowWriter | None:
        """The writer of the first plugin that opens the target, or `None`."""

    def output_path(self, target: str) -> Path | None:
        """The path that the first plugin gives whose target it is, or `None`."""


class Backends(Protocol):
    """A registry, as an LLM sees it: `stillhouse.registry.Registry` is one."""

    def plugins(self) -> Sequence[Any]:
        """Every plugin, each as a `stillhouse.registry.PluginInfo`, without importing any."""

    def hooks(self) -> HookCalls:
        """The installed hooks."""

    def register_hooks(self, name: str, plugin: object) -> None:
        """Add a plugin's hooks under a name."""

    def unregister_hooks(self, name: str) -> None:
        """Remove the hooks of that name."""

    def name_of(self, cls: type[Any]) -> str:
        """The registered name of a class of LLMs."""

    def get_llm(self, name: str) -> type[Any]:
        """The class of LLMs of that name."""

    def create(self, spec: str, **fields: Any) -> Any:
        """A new LLM, by `NAME` or `NAME:MODEL`."""


@dataclass(frozen=True)
class Row:
    """One row of an input.

    Attributes:
        index: its position among the rows, from 0.
        line: the line of the file that it begins at, from 1.
        columns: its columns; empty if it could not be read.
        error: why it could not be read, or `None`.
        digest: a number of 64 bits that changes with the row's content.
    """

    index: int
    line: int
    columns: dict[str, Any] = field(default_factory=dict)
    error: GenerationError | None = None
    digest: int = 0


class RowReader(Protocol):
    """The rows of one source.

    Iterating yields every row, in order and from the first on each time; a row that cannot be
    read is yielded with its error.

    A reader may have an attribute `places`, a sequence of paths: the files and folders that it reads.
    A run refuses an output that would replace one of them. Without it, they are found by the name of
    the source.
    """

    @property
    def schema(self) -> pa.Schema | None:
        """The types of the columns, which an output with types keeps; `None` where there are none."""

    @property
    def share_read(self) -> float | None:
        """How much of the source was read, from 0 to 1; `None` where its size is not known."""

    def __iter__(self) -> Iterator[Row]: ...

    def digest(self) -> str:
        """A digest of the whole content: another one if any row is another."""

    def close(self) -> None:
        """Release the source."""


class RowWriter(Protocol):
    """Takes rows in their order. Nobody sees the output before `finish`."""

    def write(self, record: dict[str, Any]) -> None:
        """Add the next row."""

    def finish(self) -> None:
        """Move the output to its place, once every row was written; an earlier one is replaced."""

    def abandon(self) -> None:
        """Remove what was written; an earlier output stays as it is."""
