"""`GenerateStage`: a stage of Ray Data that generates for the rows of a batch."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

from stillhouse import LLM, ConfigurationError, RowGenerator, StillhouseError
from stillhouse_ray.added import AddedColumns
from stillhouse_ray.batches import batch_of

__all__ = ["GenerateStage"]


class GenerateStage:
    """Generates for each row of a batch: a callable class for `Dataset.map_batches` of Ray Data.

    Each actor creates one and loads the LLM once; the LLM is unloaded with the actor. A batch has the format
    that `map_batches` is given (`numpy`, `pandas` or `pyarrow`), and is returned in it, with the same rows in
    the same order and the columns that `stillhouse generate` adds: `generations`, `statistics`,
    `finish_reasons`, `model_name` and `error`. In a numpy batch, these are Arrow arrays, so that their types
    are the same in every block. A failed row has its error there and does not end the job.

    Args:
        llm: `NAME`, `NAME:MODEL`, an alias, or an LLM that is not loaded. Keys come from the environment of
            the actors or from a field of the LLM; Ray shows other arguments in its logs.
        options: those of `stillhouse.RowGenerator`: where the prompt is (`prompt_column`, `messages_column`,
            `template`, `system`), `num_generations`, and generation parameters, such as `temperature`. With
            `executor='processes'` and `workers=1`, the LLM has a process of its own, and a row that ends it
            fails alone. With `expand=True` and a `schema`, the fields of the schema are columns too; a field
            whose type the schema leaves open is JSON text.

    Raises:
        ConfigurationError: an option has a wrong value, or the LLM cannot be loaded with its fields.
        UnknownLLMError, PluginError: the LLM is not installed where the actor runs, or unusable.
        GenerationError: the LLM cannot be loaded.
    """

    def __init__(self, llm: str | LLM, **options: Any) -> None:
        if str(options.get("executor")).partition(":")[0] == "ray":
            raise ConfigurationError(
                "a stage of Ray Data runs in actors already, and cannot start others",
                hint="leave out executor, and give map_batches the number of actors: "
                "compute=ray.data.ActorPoolStrategy(size=4)",
            )
        self._rows = RowGenerator(llm, **options)
        self._columns = AddedColumns(self._rows.columns)
        with contextlib.ExitStack() as resources:
            resources.enter_context(self._rows)
            self._release = weakref.finalize(self, resources.pop_all().close)

    def __repr__(self) -> str:
        llm = self._rows.llm
        return f"<{type(self).__name__} {type(llm).__name__} {llm.model_name}>"

    def __call__(self, batch: Any) -> Any:
        """Return the batch with the added columns.

        Args:
            batch: a dict of columns (arrays of numpy or lists), a `pandas.DataFrame` or a `pyarrow.Table`.

        Raises:
            ConfigurationError: the batch is none of these; it has no column with the prompt; or it has a
                column with the name of one that is added.
            GenerationError: an error that every further row would cause, such as a refused key.
        """
        given = batch_of(batch)
        self._rows.check(given.names)
        rows = given.rows(self._rows.columns_read(given.names))
        added = self._rows.generate(rows)
        if len(added) != given.count:
            raise StillhouseError(
                f"the batch has {given.count:,} rows, and its result has {len(added):,}",
                hint="report it to the authors of stillhouse-ray",
            )
        return given.joined(self._columns.table(added))
