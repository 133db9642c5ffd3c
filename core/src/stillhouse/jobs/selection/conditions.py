"""`Condition`: an expression over the columns of a row, such as `score > 3`, that says whether it belongs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from stillhouse.errors import ConfigurationError, near_matches
from stillhouse.jobs.prompts.words import PromptError
from stillhouse.protocols import Row

__all__ = ["Condition"]

# So many rows show which columns there are.
_FIRST_ROWS = 100


class Condition:
    """A Jinja2 expression over the columns of a row, with the bounds of a template.

    A column that a row lacks is null.

    Args:
        expression: its text, which is also that of this object.

    Raises:
        ConfigurationError: it is not valid.
    """

    def __init__(self, expression: str) -> None:
        from stillhouse.jobs.prompts.sandbox import Environment
        from stillhouse.jobs.prompts.templates import PromptTemplate

        self._expression = expression
        if not expression.strip():
            raise ConfigurationError(
                "--where is empty", hint='give an expression over the columns, such as --where "score > 3"'
            )
        try:
            Environment().compile_expression(expression)  # else it could end the tag, and be a template
            self._template = PromptTemplate(f"{{% if ({expression}\n) %}}1{{% endif %}}")
        except Exception as error:  # however the text breaks the compiler
            raise ConfigurationError(
                f"--where {expression} is no condition: {getattr(error, 'message', None) or error}",
                hint='write it over the columns, such as --where "score > 3 and not error"',
            ) from None
        self._nulls = dict.fromkeys(self._template.needed)

    def __str__(self) -> str:
        return self._expression

    def __call__(self, columns: dict[str, Any]) -> bool:
        """Return whether a row with these columns belongs to the run.

        Raises:
            ValueError: the expression fails for its values; the message says why.
        """
        try:
            return bool(self._template({**self._nulls, **columns}))
        except ValueError as error:
            problem = str(error).removeprefix("the template cannot be filled: ")
            raise ValueError(f"--where cannot be evaluated for this row: {problem}") from None

    def check(self, rows: Iterable[Row]) -> None:
        """Refuse an expression with a name that is no column of the first rows.

        Raises:
            PromptError: it has one.
        """
        known: dict[str, None] = {}
        for row in islice(rows, _FIRST_ROWS):
            known.update(dict.fromkeys(row.columns))
        unknown = self._template.missing(known)
        if unknown and known:
            raise PromptError(
                f"--where names {unknown[0]}, and the rows have no column of that name",
                hint=near_matches(unknown[0], known),
            )
