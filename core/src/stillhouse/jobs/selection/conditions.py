"""`Condition`: an expression over the columns of a row, such as `score > 3`, that says whether it belongs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from stillhouse.errors import ConfigurationError, near_matches
from stillhouse.protocols import Row

__all__ = ["Condition"]

# So many rows show which columns there are.
_FIRST_ROWS = 100


class Condition:
    """A Jinja2 expression over the columns of a row, which is sandboxed.

    After `check`, a column that a row lacks is null; else it fails the row.

    Args:
        expression: its text, which is also that of this object.

    Raises:
        ConfigurationError: it is not valid.
    """

    def __init__(self, expression: str) -> None:
        from jinja2 import meta

        self._expression = expression
        environment = _environment()
        try:
            self._evaluate = environment.compile_expression(expression, undefined_to_none=False)
            self._names = meta.find_undeclared_variables(environment.parse(f"{{{{ {expression} }}}}"))
        except Exception as error:  # however the text breaks the compiler
            raise ConfigurationError(
                f"--where {expression} is no condition: {error}",
                hint='write it over the columns, such as --where "score > 3 and not error"',
            ) from None
        self._nulls: dict[str, None] = {}

    def __str__(self) -> str:
        return self._expression

    def __call__(self, columns: dict[str, Any]) -> bool:
        """Return whether a row with these columns belongs to the run.

        Raises:
            ValueError: the expression fails for its values; the message says why.
        """
        try:
            return bool(self._evaluate({**self._nulls, **columns}))
        except Exception as error:  # whatever an expression does with a row's values
            raise ValueError(f"whether --where takes the row cannot be said: {error}") from None

    def check(self, rows: Iterable[Row]) -> None:
        """Refuse an expression with a name that is no column of the first rows.

        Raises:
            ConfigurationError: it has one.
        """
        known: dict[str, None] = {}
        for row in islice(rows, _FIRST_ROWS):
            known.update(dict.fromkeys(row.columns))
        unknown = sorted(self._names - known.keys())
        if unknown and known:
            raise ConfigurationError(
                f"--where names {unknown[0]}, and the rows have no column of that name",
                hint=near_matches(unknown[0], known),
            )
        self._nulls = dict.fromkeys(self._names)


def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined)
