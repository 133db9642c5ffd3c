"""`RowGenerator`: generates for lists of rows that another program has in memory, without a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, Self

from stillhouse.errors import ConfigurationError, GenerationError, StillhouseError
from stillhouse.jobs.executors.choosing import executing_of
from stillhouse.jobs.formats.columns import has_properties
from stillhouse.jobs.formats.rows import RowFormatter
from stillhouse.jobs.launch.run import in_python_words, options_of, read_options, refuse_options_of_run
from stillhouse.jobs.prompts.shapes import SHAPES
from stillhouse.jobs.runs.looking import look
from stillhouse.jobs.store.stream import StreamStore
from stillhouse.llm import LLM
from stillhouse.protocols import Executor, InputWithArguments, OutputColumns, Row, RowInputs
from stillhouse.typing import FormattedInput

__all__ = ["RowGenerator"]


class RowGenerator:
    """Generates for lists of rows, for a program that reads and writes the rows itself.

    Prompts are made from columns, and results become columns, as `stillhouse.run` does it. There is no state:
    nothing is resumed, and nothing is written. It is a context manager that loads the LLM; one that is loaded
    stays loaded. `stillhouse-ray` uses it for Ray Data.

    Args:
        llm: `NAME`, `NAME:MODEL`, an alias, or an LLM.
        prompt_column: the column with the prompt; by default as for `stillhouse.run`.
        messages_column: the column with the chat.
        template: a Jinja2 template that makes the prompt from the columns of a row.
        system: a system message for chats that do not begin with one.
        drop_last_assistant: leave out the assistant's answer at the end of a chat.
        raw: send the text as a raw prompt, without a chat template.
        image_column: the column with the images of a row: a path, bytes, a web address, or a list of these.
        images_from: the folder, or folders, from which image files may be read.
        output_prefix: a prefix for the names of the added columns.
        text: return the text itself instead of a list with one text; requires one generation.
        expand: also return the fields of the schema as columns; requires one generation and a JSON schema
            with properties. A field that the schema does not name is only in the text.
        num_generations: number of generations for each row.
        param: generation parameters, for those that have the name of an option here.
        row_params: read a row's generation parameters from its columns of these names.
        schema: the form of the answers, as for `stillhouse.run`.
        executor: generate with several workers, as for `stillhouse.run`. With `'processes'`, a row that kills
            its process fails alone.
        workers: number of workers of the executor; by default one for each core.
        parameters: generation parameters of the LLM, such as `temperature`.

    Attributes:
        llm: the LLM.
        columns: the added columns, with the types that are known.

    Raises:
        ConfigurationError: an option has a wrong value.
        UnknownLLMError, PluginError: the LLM is not installed or unusable.

    Examples:
        >>> rows = [stillhouse.Row(0, 1, {"question": "Name a river in Peru."})]
        >>> with stillhouse.RowGenerator("echo", prompt_column="question") as generator:
        ...     results = generator.generate(rows)
        >>> results[0]["generations"], results[0]["error"]
        (['Name a river in Peru.'], None)
    """

    def __init__(
        self,
        llm: str | LLM,
        *,
        prompt_column: str | None = None,
        messages_column: str | None = None,
        template: str | None = None,
        system: str | None = None,
        drop_last_assistant: bool = False,
        raw: bool = False,
        image_column: str | None = None,
        images_from: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
        output_prefix: str | None = None,
        text: bool = False,
        expand: bool = False,
        num_generations: int = 1,
        param: Mapping[str, Any] | None = None,
        row_params: bool = False,
        schema: Any = None,
        executor: str | None = None,
        workers: int | None = None,
        **parameters: Any,
    ) -> None:
        given = {**locals(), "input": [], "fields": None, "config": None}
        problem = f"{type(self).__name__} has no option {{!r}}, which is for a run"
        refuse_options_of_run(parameters, problem, "leave it out, or use stillhouse.run")
        with in_python_words():
            # Nothing is written there: every run has an output.
            options = options_of(given, "rows.jsonl")
            self.llm, command = read_options(options)
            if options.is_offline(self.llm) or options.is_in_order(self.llm):
                raise ConfigurationError(
                    f"{type(self).__name__} submits no offline batches",
                    hint="set use_offline_batch_generation=False, or use stillhouse.run",
                )
            if expand and not has_properties(command.writing.schema):
                raise ConfigurationError(
                    "--expand requires a JSON schema with properties, which are the added columns",
                    hint="give --schema, or leave out --expand",
                )
            self._executing = executing_of(self.llm, command)
        self._formatter = command.formatter
        self._count = command.num_generations
        self._arguments = command.arguments
        # A table has the same columns in each of its parts, whatever an answer contains.
        self._columns = replace(command.writing, closed=True).columns([])
        self.columns: OutputColumns = self._columns
        self._given: dict[str, None] | None = None
        self._has_looked = False
        self._executor: Executor = self.llm
        self._resources = contextlib.ExitStack()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {type(self.llm).__name__} {self.llm.model_name}>"

    def __enter__(self) -> Self:
        with in_python_words():
            self._executor = self._resources.enter_context(self._executing())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._resources.close()
        self._columns.tell()

    def columns_read(self, columns: Iterable[str]) -> list[str]:
        """Return those of the columns that a row needs when `generate` gets it.

        A program can leave the others in its own format.
        """
        names = [*columns]
        formatter = self._formatter
        if formatter.parameters is not None or formatter.images is not None:
            return names
        if formatter.template is not None:
            return [*formatter.template.used(dict.fromkeys(names))]
        wanted = (*SHAPES, "input") if formatter.column is None else (formatter.column,)
        return [name for name in names if name in wanted]

    def check(self, columns: Iterable[str]) -> None:
        """Refuse columns of rows that the added columns would replace.

        Raises:
            ConfigurationError: there are such columns; the message names them.
        """
        names = dict.fromkeys(columns)
        if names != self._given:
            with in_python_words():
                self._columns.check(names)
            self._given = names

    def generate(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Generate for rows. The LLM must be loaded.

        Args:
            rows: the rows, with at least the columns of `columns_read`. The errors of unusable rows are
                `Row.error`.

        Returns:
            The added columns of each row, in the order of the rows. A failed row has its error there.

        Raises:
            ConfigurationError: the LLM is not loaded, or none of the first rows has the column of the prompt.
            GenerationError: an error that every further row would cause, such as a refused key.
        """
        if rows and not self._has_looked:
            # Rows may lack the columns that are not read: their names are for the message.
            named = (replace(row, columns={**(self._given or {}), **row.columns}) for row in rows)
            with in_python_words():
                look(self.llm, named, self._formatter)
            self._has_looked = True
        results: list[Any] = [None] * len(rows)
        groups = self._executor.iter_finished(
            _Inputs(rows, self._formatter), self._count, on_error="yield", ordered=False, **self._arguments
        )
        with contextlib.closing(groups):
            for group in groups:
                for index, result, _ in group:
                    if results[index] is not None:
                        raise self._miscounted(f"two results for row {index + 1}")
                    results[index] = result
        # The names of a row's own columns decide how the added ones are named; their values do not matter.
        finished = _Records(self._given or {})
        store = StreamStore(finished, self.llm.model_name, self._columns)
        for index, (row, result) in enumerate(zip(rows, results, strict=True)):
            if result is None:
                raise self._miscounted(f"no result for row {index + 1}")
            store.put(Row(row.index, row.line, finished.given), result, None)
        return finished.records

    def _miscounted(self, what: str) -> StillhouseError:
        return StillhouseError(
            f"{type(self.llm).__name__} returned {what}", hint="report it to the authors of the backend"
        )


class _Inputs(RowInputs):
    """The inputs of rows. Hooks do not receive the rows: their positions in the whole are not known here."""

    def __init__(self, rows: Sequence[Row], formatter: RowFormatter) -> None:
        self._rows, self._formatter = rows, formatter
        self.has_arguments = formatter.has_arguments

    def __iter__(self) -> Iterator[FormattedInput | InputWithArguments | GenerationError]:
        return map(self._formatter, self._rows)

    def row_at(self, position: int) -> Row | None:
        return None


class _Records:
    """A writer that keeps the added columns of rows.

    Args:
        given: the names of their other columns.
    """

    def __init__(self, given: dict[str, None]) -> None:
        self.given: dict[str, Any] = given
        self.records: list[dict[str, Any]] = []

    def write(self, record: dict[str, Any]) -> None:
        self.records.append({name: value for name, value in record.items() if name not in self.given})

    def finish(self) -> None:
        """Do nothing: the records are in memory."""

    def abandon(self) -> None:
        """Do nothing."""
