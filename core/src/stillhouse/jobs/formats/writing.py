"""`Writing`: how the output of a run is written; what is generated does not depend on it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.batch_results import BatchResults
from stillhouse.jobs.formats.columns import ResultColumns
from stillhouse.structured import normalize_structured_output
from stillhouse.typing import StructuredOutput

if TYPE_CHECKING:
    from stillhouse.llm import LLM

__all__ = ["BATCH", "FORMATS", "Writing", "schema_of", "schema_of_form"]

BATCH = "openai-batch"
"""The format of the results of an offline batch of OpenAI."""

FORMATS = ("jsonl", "csv", "tsv", "parquet", BATCH)
"""The formats that an output can be written in, whatever its name ends in."""


@dataclass(frozen=True)
class Writing:
    """How the output of a run is written. It may differ when the run is resumed.

    Attributes:
        format: one of `FORMATS`; `None` for the one that the name of the output says.
        prefix: what the names of the columns begin with that the output adds.
        text: whether the one text is written instead of a list.
        expand: whether the fields of an answer that is a JSON object are columns.
        schema: the JSON schema of the answers, where there is one; for `expand`.
        closed: whether `expand` leaves out the fields that the schema does not name.
    """

    format: str | None = None
    prefix: str = ""
    text: bool = False
    expand: bool = False
    schema: Mapping[str, Any] | None = None
    closed: bool = False

    def columns(self, given: Sequence[str] = ()) -> ResultColumns:
        """Return the columns that the output adds, for writing it once.

        Args:
            given: the columns that every row of the input has, where they are known.
        """
        if self.format == BATCH:
            return BatchResults()
        return ResultColumns(
            self.prefix,
            text=self.text,
            expand=self.expand,
            schema=self.schema,
            closed=self.closed,
            given=given,
        )

    def as_json(self) -> dict[str, Any]:
        """Return what differs from an output without options, as JSON types."""
        facts = {"format": self.format, "prefix": self.prefix, "text": self.text, "expand": self.expand}
        return {name: value for name, value in facts.items() if value}


def schema_of(llm: LLM, form: StructuredOutput | None = None) -> Mapping[str, Any] | None:
    """Return the JSON schema of the answers; the form of the run wins over that of its LLM."""
    return schema_of_form(form or getattr(llm, "structured_output", None))


def schema_of_form(form: Any) -> Mapping[str, Any] | None:
    """Return the JSON schema of a form; `None` if it is none, or of another kind."""
    with contextlib.suppress(ConfigurationError):  # an LLM may have something else of that name
        form = normalize_structured_output(form)
        if form is not None and form["format"] == "json":
            return cast("Mapping[str, Any]", form["schema"])
    return None
