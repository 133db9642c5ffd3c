"""Protocols of objects that lower floors use and higher floors implement.

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
    """The installed hooks, for the code that calls them.

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
        """Return the first answer of a plugin, or `None`."""

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
        """Pass the result of an input to every plugin."""

    def run_started(self, run: RunInfo) -> None:
        """Notify every plugin that a run starts."""

    def run_finished(self, summary: RunSummary) -> None:
        """Notify every plugin that the work on a run has ended."""

    def open_reader(self, source: str) -> RowReader | None:
        """Return the reader of the first plugin that opens the source, or `None`."""

    def make_executor(
        self, name: str, address: str | None, llm: Any, workers: int | None
    ) -> AbstractContextManager[Executor] | None:
        """Return the executor of the first plugin that has one of this name, or `None`."""

    def failures(self, hook: str) -> Mapping[str, str]:
        """Return what was reported of plugins in which a hook failed, by their names."""

    def open_writer(
        self, target: str, schema: pa.Schema | None = None, columns: OutputColumns | None = None
    ) -> RowWriter | None:
        """Return the writer of the first plugin that opens the target, or `None`."""

    def output_path(self, target: str) -> Path | None:
        """Return the path of the target, from the first plugin that handles it, or `None`."""


class Backends(Protocol):
    """The members of a registry that an LLM uses; `stillhouse.registry.Registry` implements them."""

    def plugins(self) -> Sequence[Any]:
        """List every plugin as a `stillhouse.registry.PluginInfo`, without importing any."""

    def hooks(self) -> HookCalls:
        """Return the installed hooks."""

    def register_hooks(self, name: str, plugin: object) -> None:
        """Add a plugin's hooks under a name."""

    def unregister_hooks(self, name: str) -> None:
        """Remove the hooks of that name."""

    def name_of(self, cls: type[Any]) -> str:
        """Return the registered name of an LLM's class."""

    @property
    def default_llm(self) -> str:
        """The LLM to use if none is named, or an empty string."""

    def resolve(self, spec: str) -> str:
        """Return the target of an alias, and any other text unchanged."""

    def get_llm(self, name: str) -> type[Any]:
        """Return the class of the LLM with that name."""

    def create(self, spec: str, **fields: Any) -> Any:
        """Create an LLM from `NAME` or `NAME:MODEL`."""


@dataclass(frozen=True)
class Row:
    """One row of an input.

    Attributes:
        index: its position among the rows, from 0.
        line: the line of the file where it begins, from 1.
        columns: its columns; empty if it could not be read.
        error: the reason why it could not be read, or `None`.
        digest: a 64-bit number that changes with the row's content.
        typed: whether its columns have types. An object in a typed column has the fields of all rows, so a
            null field may be a field that this row does not have.
    """

    index: int
    line: int
    columns: dict[str, Any] = field(default_factory=dict)
    error: GenerationError | None = None
    digest: int = 0
    typed: bool = False

    @property
    def place(self) -> str:
        """Its place, for messages: `line 3`, `row 3` of a table, or `b.csv, line 3` of several files."""
        return f"row {self.line}" if self.typed else f"line {self.line}"


class InputWithArguments:
    """An input with its own generation parameters, which win over those of the call.

    An LLM checks the parameters together with those of the call, once for all inputs with the same `key`.

    Args:
        input: the input.
        arguments: the generation parameters.
        key: a key that is equal for equal arguments only.
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
    """Inputs that were made from rows. An LLM that generates for them passes the row of each to hooks.

    Attributes:
        has_arguments: whether an input may be an `InputWithArguments`.
    """

    has_arguments: bool = False

    @abstractmethod
    def __iter__(self) -> Iterator[FormattedInput | InputWithArguments | GenerationError]: ...

    @abstractmethod
    def row_at(self, position: int) -> Row | None:
        """Return the row of the input at a position of the latest iteration, as long as it has no result."""


@dataclass(frozen=True)
class RunInfo:
    """A bulk run, as `run_started` receives it.

    Attributes:
        source: the input, as the user gave it.
        output: the output, as the user gave it; `-` for standard output.
        llm: the registered name of the LLM, or the name of its class if it is not registered.
        model: the name of the model.
        rows: number of rows of the run; `None` if it is unknown until they are read.
        resumed: whether the run was started earlier; finished rows are not generated again.
    """

    source: str
    output: str
    llm: str
    model: str
    rows: int | None
    resumed: bool


@dataclass(frozen=True)
class RunSummary:
    """The work of one process on a run, without the work of earlier processes.

    Attributes:
        run: the run, as `run_started` received it.
        outcome: `complete`: every row is finished and the output is written; `interrupted` by a signal or the
            caller; `stopped` by an error; `waiting` for offline batches.
        done: number of rows with an output.
        failed: number of failed rows, by the kind of their error.
        skipped: number of rows that were finished before.
        input_tokens: the sum of the reported input tokens; `None` if the backend reported none.
        output_tokens: the sum of the reported output tokens; `None` if the backend reported none.
        cost: the cost in USD; `None` if the prices are unknown and the provider does not report the cost.
        seconds: the duration of the work.
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
        """Number of failed rows."""
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
        """Generate for inputs, in bounded memory, as `LLM.iter_finished` does; same arguments and errors.

        A run checks what the executor of a plugin yields: lists of tuples, each with the index of an input,
        its output or `GenerationError`, and the seconds that it took. Each input has one result. The inputs
        may be iterated over once, in any thread.
        """


class RowReader(Protocol):
    """The rows of one source.

    Each iteration yields every row in order, starting with the first. A row that cannot be read is yielded
    with its error.

    A reader may have three more attributes. `names` lists the columns that are known without reading a row,
    such as those of a header, if there is no schema. `places` is a sequence of the files and folders that it
    reads: a run refuses an output that would replace one of them. Without it, the name of the source is
    used. `num_rows` is the number of rows, or `None` if it is unknown until they are read.
    """

    @property
    def schema(self) -> pa.Schema | None:
        """The types of the columns, which a typed output keeps; `None` if columns have no types."""

    @property
    def share_read(self) -> float | None:
        """The share of the source that was read, from 0 to 1; `None` if its size is unknown."""

    def __iter__(self) -> Iterator[Row]: ...

    def digest(self) -> str:
        """Return a digest of the whole content, which changes if any row changes."""

    def close(self) -> None:
        """Release the source."""


class OutputColumns(Protocol):
    """The columns that an output adds to those of its input.

    Attributes:
        given: the columns that every row of the input has, according to a schema or a header.
    """

    given: Sequence[str]

    @property
    def names(self) -> Collection[str]:
        """Their names, in order. Names that come from an answer are known after its row was written."""

    def types(self) -> dict[str, pa.DataType]:
        """Return the Arrow types of the columns whose types are known before any row is written."""


class RowWriter(Protocol):
    """Writes rows in order. The output is not visible before `finish`."""

    def write(self, record: dict[str, Any]) -> None:
        """Add the next row."""

    def finish(self) -> None:
        """Move the output to its place after the last row; an earlier output is replaced."""

    def abandon(self) -> None:
        """Remove the unfinished output; an earlier output is not changed."""
