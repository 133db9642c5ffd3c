"""`ResultColumns`: the columns that an output adds to those of its input, and what a row is written as."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from stillhouse._wording import number_of
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.schema_types import resolved
from stillhouse.jobs.prompts.unused import listed
from stillhouse.protocols import Row, RowReader
from stillhouse.typing import GenerateOutput

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MAX_COLUMNS", "RESULTS", "ResultColumns", "given_names", "has_properties"]

RESULTS = ("generations", "statistics", "finish_reasons", "model_name", "error")
"""The columns that every output has."""

# Those that an answer may bring as well.
_MORE = tuple(name for name in GenerateOutput.__annotations__ if name not in RESULTS)

MAX_COLUMNS = 2000
"""How many columns an output gets that no schema names: more of them are keys of data."""

# How many of the columns that were written under another name are said.
_MAX_TOLD = 10

# Many models put JSON in one, where nothing makes them answer with JSON alone.
_FENCE = re.compile(r"\A\s*```(?:json)?[ \t]*\n(.*)\n?[ \t]*```\s*\Z", re.DOTALL)

_logger = logging.getLogger("stillhouse.jobs")


class ResultColumns:
    """The columns that an output adds to those of its input; one object for each time that it is written.

    No column of the input is lost. `check` refuses names that clash, as far as they are known before anything
    is sent. Of those that are seen later, one that every output needs keeps its name, and the column of the
    row is written as `input_NAME`; what an answer alone brings is written as `generated_NAME`.

    Args:
        prefix: what the names of the columns begin with.
        text: whether the one text is written instead of a list of one.
        expand: whether the fields of an answer that is a JSON object are columns too.
        schema: the JSON schema of the answers, where there is one; for `expand`.
        closed: whether `expand` leaves out the fields that the schema does not name.
        given: the columns that every row of the input has, where they are known.

    Attributes:
        given: those columns.
    """

    def __init__(
        self,
        prefix: str = "",
        *,
        text: bool = False,
        expand: bool = False,
        schema: Mapping[str, Any] | None = None,
        closed: bool = False,
        given: Sequence[str] = (),
    ) -> None:
        self.given = given
        self._prefix = prefix
        self._text = text
        self._expand = expand
        self._schema = schema or {}
        self._needed = frozenset(prefix + name for name in RESULTS)
        self._fields = [self._field(name) for name in _properties(self._schema)] if expand else []
        self._only = frozenset(self._fields) if closed else None
        self._names = dict.fromkeys([*(prefix + name for name in RESULTS), *self._fields])
        self._is_plain = not (prefix or text or expand)
        self._renamed: Counter[tuple[str, str]] = Counter()
        self._no_objects = 0

    @property
    def names(self) -> Collection[str]:
        """Their names, in order. Those that only an answer shows are known when its row was written."""
        return self._names.keys()

    def types(self) -> dict[str, pa.DataType]:
        """Return their Arrow types, as far as they are known before any row is written."""
        from stillhouse.jobs.formats.schema_types import result_types, type_of_schema

        types = {self._prefix + name: type for name, type in result_types(text=self._text).items()}
        for field, schema in zip(self._fields, _properties(self._schema).values(), strict=False):
            type = type_of_schema(schema, self._schema)
            if type is not None:
                types[field] = type
        return types

    def check(self, columns: Collection[str]) -> None:
        """Refuse columns of the input that have the name of one of these.

        Raises:
            ConfigurationError: there are such columns; the message names them.
        """
        names = {*self._names, *(self._prefix + name for name in _MORE)}
        taken = [name for name in dict.fromkeys(columns) if name in names]  # a header may be among them
        if taken:
            what = "a column" if len(taken) == 1 else "columns"
            raise ConfigurationError(
                f"the input has {what} {listed(taken)}, and the output adds {what} of that name",
                hint="name those of the output otherwise with --output-prefix PREFIX, such as "
                f"{'second_' if self._prefix else 'new_'}; no column of the input is replaced",
            )

    def record(self, row: Row, result: Mapping[str, Any], finished: float = 0.0) -> dict[str, Any]:
        """Return what a row is written as.

        Args:
            row: the row.
            result: what was generated for it, by the names of `RESULTS`, and more.
            finished: when, in seconds since 1970.
        """
        columns = row.columns
        if self._is_plain and columns.keys().isdisjoint(result):
            if len(result) > len(RESULTS):
                self._note(result)
            return {**columns, **result}
        return self._merged(columns, result)

    def tell(self) -> None:
        """Log what was noticed while the rows were written."""
        count = self._no_objects
        if count:
            _logger.warning(
                "%s no JSON object: the text is in the column %sgenerations alone",
                number_of(count, "answer", "is/are"), self._prefix,
            )  # fmt: skip
        for (name, other), count in self._renamed.most_common(_MAX_TOLD):
            _logger.warning(
                "two columns have the name %s in %s: one of them is written as %s; "
                "--output-prefix PREFIX names those of the output otherwise",
                name, number_of(count, "row"), other,
            )  # fmt: skip

    def _merged(self, columns: dict[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
        ours = {self._prefix + name: value for name, value in result.items()}
        generations = result["generations"]
        only = generations[0] if generations else None
        if self._text:
            ours[f"{self._prefix}generations"] = only
        if self._expand:
            ours = self._expanded(ours, only)
        if not columns.keys().isdisjoint(ours):
            if not self._needed.isdisjoint(columns):
                columns = self._renamed_in(columns, "input_", self._needed, ours)
            ours = self._renamed_in(ours, "generated_", columns, columns)
        self._note(ours)
        return {**columns, **ours}

    def _note(self, ours: Mapping[str, Any]) -> None:
        """Remember the names of the columns of a row."""
        if not ours.keys() <= self._names.keys():
            room = max(MAX_COLUMNS - len(self._names), 0)
            self._names.update(
                dict.fromkeys(islice((name for name in ours if name not in self._names), room))
            )

    def _renamed_in(
        self, named: Mapping[str, Any], prefix: str, taken: Collection[str], others: Collection[str]
    ) -> dict[str, Any]:
        """Return columns, with a prefix where their name is taken."""
        renamed = {}
        for name, value in named.items():
            if name in taken:
                other = prefix + name
                while other in named or other in others:
                    other = prefix + other
                self._renamed[name, other] += 1
                name = other
            renamed[name] = value
        return renamed

    def _expanded(self, ours: dict[str, Any], answer: str | None) -> dict[str, Any]:
        """Return the columns with the fields of an answer, and null for those of the schema that it lacks."""
        fields: dict[str, Any] = dict.fromkeys(self._fields)
        found = {} if answer is None else _object(answer)
        if found is None:
            self._no_objects += 1
        for name, value in (found or {}).items():
            field = self._field(name)
            if self._only is not None and field not in self._only:
                continue
            if field != self._prefix + name:
                self._renamed[self._prefix + name, field] += 1
            fields[field] = value
        return {**self._renamed_in(ours, "generated_", fields, fields), **fields}

    def _field(self, name: str) -> str:
        """Return the name of the column of a field: no column that every output needs has it."""
        name = self._prefix + name
        while name in self._needed:
            name = f"generated_{name}"
        return name


def given_names(reader: RowReader) -> list[str]:
    """Return the columns that every row of an input has, by its schema or its header."""
    if reader.schema is not None:
        return list(reader.schema.names)
    return [name for name in getattr(reader, "names", None) or () if isinstance(name, str)]


def has_properties(schema: Mapping[str, Any] | None) -> bool:
    """Return whether a JSON schema names the fields of the objects that it describes."""
    return bool(_properties(schema or {}))


def _properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the objects that a JSON schema describes."""
    properties = resolved(schema, schema).get("properties")
    return properties if isinstance(properties, dict) else {}


def _object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text is, in a fence or without one; `None` if it is none."""
    try:
        value = json.loads(_FENCE.sub(r"\1", text))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
