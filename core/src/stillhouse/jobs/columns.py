"""What the output says of a row besides the input's columns."""

from __future__ import annotations

from typing import Any, cast

from stillhouse.errors import GenerationError
from stillhouse.typing import GenerateOutput

__all__ = ["columns_of", "output_of", "tokens_of"]


def columns_of(
    output: GenerateOutput | None, error: GenerationError | None, model_name: str
) -> dict[str, Any]:
    """The columns that the output gets besides those of the input."""
    columns: dict[str, Any] = {
        "generations": None,
        "statistics": None,
        "finish_reasons": None,
        "model_name": model_name,
        "error": None if error is None else {"kind": error.kind, "message": error.message},
    }
    if output is not None:
        columns |= output
        columns["statistics"] = output.get("statistics") or {}
    return columns


def output_of(columns: dict[str, Any]) -> GenerateOutput | None:
    """What was generated, from the columns that hold it."""
    if columns["generations"] is None:
        return None
    kept = {key: value for key, value in columns.items() if key not in ("model_name", "error")}
    if kept["finish_reasons"] is None:
        del kept["finish_reasons"]
    return cast("GenerateOutput", kept)


def tokens_of(output: GenerateOutput | None) -> tuple[int | None, int | None]:
    """Input and output tokens, as far as the backend said."""
    statistics = {} if output is None else output.get("statistics") or {}
    counts = [statistics.get(name) for name in ("input_tokens", "output_tokens")]
    found = [None if count is None else sum(filter(None, count)) for count in counts]
    return found[0], found[1]
