"""What lower floors need of higher ones, as protocols, so that they need not import them.

Over 300 lines: a class for each of them, and most lines document its members.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from stillhouse.errors import GenerationError
    from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = [
    "Backends",
    "Executor",
    "HookCalls",
    "InputWithArguments",
    "OutputColumns",
    "Row",
    "RowInputs",
    "RowReader",
    "RowWriter",
    "RunInfo",
    "RunSummary",
]


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
        self,
        llm: Any,
        input: Any,
        num_generations: int,
        arguments: Mapping[str, Any],
        row: Row | None = None,
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
        row: Row | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Show every plugin the result of an input."""

    def run_started(self, run: RunInfo) -> None:
        """Tell every plugin that a run begins."""

    def run_finished(self, summary: RunSummary) -> None:
        """Tell every plugin how the work on a run ended."""

    def open_reader(self, source: str) -> RowReader | None:
        """The reader of the first plugin that opens the source, or `None`."""

    def make_executor(
        self, name: str, address: str | None, llm: Any, workers: int | None
    ) -> AbstractContextManager[Executor] | None:
        """The executor of the first plugin that has one of this name, or `None`."""

    def open_writer(
        self, target: str, schema: pa.Schema | None = None, columns: OutputColumns | None = None
    ) -> RowWriter | None:
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

    @property
    def default_llm(self) -> str:
        """The LLM to use where none is named, or an empty string."""

    def resolve(self, spec: str) -> str:
        """What an alias stands for; anything else as it is."""

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
        typed: whether its columns have types, so that an object in one has the fields of all rows: one that
            is null may be one that this row does not have.
    """

    index: int
    line: int
    columns: dict[str, Any] = field(default_factory=dict)
    error: GenerationError | None = None
    digest: int = 0
    typed: bool = False

    @property
    def place(self) -> str:
        """Where it is, for a message: `line 3`, of a table `row 3`; of several files, `b.csv, line 3`."""
        return f"row {self.line}" if self.typed else f"line {self.line}"


class InputWithArguments:
    """An input with generation parameters of its own, which win over those of the call.

    An LLM checks the parameters together with those of the call, once for all inputs of the same `key`.

    Args:
        input: the input.
        arguments: the generation parameters.
        key: equal for equal arguments, and for no others.
    """

    __slots__ = ("_in_force", "arguments", "input", "key")

    def __init__(self, input: FormattedInput, arguments: Mapping[str, Any], key: Hashable) -> None:
        self.input = input
        self.arguments = arguments
        self.key = key
        self._in_force: Any = None  # set by the call that takes it

    def __reduce__(self) -> tuple[type[InputWithArguments], tuple[Any, ...]]:
        return InputWithArguments, (self.input, self.arguments, self.key)


class RowInputs(ABC):
    """Inputs that were made of rows: an LLM that generates for them shows hooks the row of each.

    Attributes:
        has_arguments: whether an input may be an `InputWithArguments`.
    """

    has_arguments: bool = False

    @abstractmethod
    def __iter__(self) -> Iterator[FormattedInput | InputWithArguments | GenerationError]: ...

    @abstractmethod
    def row_at(self, position: int) -> Row | None:
        """Return the row of the input at a position of the latest iteration, while it has no result."""


@dataclass(frozen=True)
class RunInfo:
    """A bulk run, as hooks are shown it when it begins.

    Attributes:
        source: the input, as the user gave it.
        output: the output, as the user gave it; `-` for standard output.
        llm: the registered name of the LLM, or its class where it has none.
        model: the name of the model.
        rows: how many rows belong to the run; `None` where that is not known before they are read.
        resumed: whether the run was begun earlier: the rows that are finished are not generated again.
    """

    source: str
    output: str
    llm: str
    model: str
    rows: int | None
    resumed: bool


@dataclass(frozen=True)
class RunSummary:
    """How the work of one process on a run ended: what this process did, without what was done before.

    Attributes:
        run: the run, as `run_started` was shown it.
        outcome: `complete`: every row is finished and the output written; `interrupted`: by a signal or the
            caller; `stopped`: by an error; `waiting`: for offline batches.
        done: rows with an output.
        failed: rows without, by the kind of their error.
        skipped: rows that had been finished before.
        input_tokens: as far as the backend reported them; `None` if it reported none.
        output_tokens: likewise.
        cost: in USD; `None` where neither the prices are known nor the provider reports it.
        seconds: how long the work took.
    """

    run: RunInfo
    outcome: Literal["complete", "interrupted", "stopped", "waiting"]
    done: int
    failed: dict[str, int]
    skipped: int
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    seconds: float

    @property
    def failures(self) -> int:
        """How many rows failed."""
        return sum(self.failed.values())


class Executor(Protocol):
    """What generates for the rows of a run: a loaded LLM, or workers with a copy of it each."""

    def check_input(self, input: Any) -> None:
        """Refuse an input that the LLM cannot take.

        Raises:
            ConfigurationError, UnsupportedError: it says what is wrong with the input.
        """

    def iter_finished(
        self,
        inputs: Iterable[Any],
        num_generations: int = 1,
        *,
        on_error: Literal["raise", "yield"] = "raise",
        ordered: bool = True,
        **kwargs: Any,
    ) -> Generator[list[Any], None, None]:
        """Generate for inputs, in bounded memory, as `LLM.iter_finished` does; same arguments and errors."""


class RowReader(Protocol):
    """The rows of one source.

    Iterating yields every row, in order and from the first on each time; a row that cannot be
    read is yielded with its error.

    A reader may have three more attributes. `names` lists the columns that are known without reading a row,
    as a header has them, where there is no schema. `places`, a sequence of paths, has the files and folders
    that it reads: a run refuses an output that would replace one of them; without it, they are found by the
    name of the source. `num_rows` is how many rows there are, or `None` where they would have to be read for
    that.
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


class OutputColumns(Protocol):
    """The columns that an output adds to those of its input.

    Attributes:
        given: the columns that every row of the input has, where a schema or a header says so.
    """

    given: Sequence[str]

    @property
    def names(self) -> Collection[str]:
        """Their names, in order. Those that only an answer shows are known when its row was written."""

    def types(self) -> dict[str, pa.DataType]:
        """Return the Arrow types of those for which they are known before any row is written."""


class RowWriter(Protocol):
    """Takes rows in their order. Nobody sees the output before `finish`."""

    def write(self, record: dict[str, Any]) -> None:
        """Add the next row."""

    def finish(self) -> None:
        """Move the output to its place, once every row was written; an earlier one is replaced."""

    def abandon(self) -> None:
        """Remove what was written; an earlier output stays as it is."""
