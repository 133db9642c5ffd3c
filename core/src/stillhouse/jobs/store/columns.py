"""The columns that an output adds to those of its input, and the tokens of a row."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from stillhouse.errors import GenerationError
from stillhouse.outputs import MAX_COUNT, check_output, count_of
from stillhouse.typing import GenerateOutput

__all__ = ["FinishedRow", "Tokens", "columns_of", "output_of", "tokens_of", "unstorable", "usable"]


@dataclass(frozen=True)
class FinishedRow:
    """A finished row in the store.

    Attributes:
        index: its position in the input.
        digest: the digest of the row when it was sent.
        columns: the columns that are added to the output.
        finished: the time when it was finished, in seconds since 1970.
    """

    index: int
    digest: int
    columns: dict[str, Any]
    finished: float = 0.0


class Tokens(NamedTuple):
    """Tokens of a row, and their cost, as far as the backend reported them.

    Attributes:
        input: tokens of the whole input.
        output: tokens of the output, reasoning included.
        cached: input tokens that were read from the provider's cache.
        written: input tokens that were written to it.
        written_1h: written tokens that are kept for an hour.
        cost: the cost in USD, if the provider reports it.
        billed_input: tokens that are billed as input, if the provider reports another count for this.
        billed_output: tokens that are billed as output, likewise.
    """

    input: int | None
    output: int | None
    cached: int | None
    written: int | None
    written_1h: int | None = None
    cost: float | None = None
    billed_input: int | None = None
    billed_output: int | None = None


_STATISTICS = (
    "input_tokens", "output_tokens", "cached_tokens", "cache_creation_tokens", "cache_creation_1h_tokens",
    "billed_input_tokens", "billed_output_tokens",
)  # fmt: skip

# A cost beyond that is none.
_MAX_COST = 1e9


def columns_of(
    output: GenerateOutput | None, error: GenerationError | None, model_name: str
) -> dict[str, Any]:
    """Return the columns that the output adds to those of the input."""
    told = None if error is None else {"kind": error.kind, "message": error.message}
    columns: dict[str, Any] = {
        "generations": None,
        "statistics": None,
        "finish_reasons": None,
        "model_name": model_name,
        "error": told,
    }
    if output is not None:
        columns |= output
        columns["statistics"] = output.get("statistics") or {}
        columns["model_name"], columns["error"] = model_name, told  # whatever else an output holds
    return columns


def unstorable(error: Exception) -> GenerationError:
    """Return the error of a row whose result cannot be stored."""
    what = f"{type(error).__name__}: {error}".encode(errors="replace").decode()[:500]
    return GenerationError(
        f"the row's result cannot be stored: {what}",
        hint="report it to the authors of the backend; the other rows are not concerned",
    )


def usable(outputs: Iterable[Any]) -> Iterator[GenerateOutput]:
    """Yield the valid outputs of an error, which are not checked yet."""
    for output in outputs:
        if output is not None:
            with contextlib.suppress(GenerationError):
                yield check_output(output, None, "the backend")


def output_of(columns: dict[str, Any]) -> GenerateOutput | None:
    """Return the output in the columns, or `None` if there is none."""
    if columns["generations"] is None:
        return None
    kept = {key: value for key, value in columns.items() if key not in ("model_name", "error")}
    if kept["finish_reasons"] is None:
        del kept["finish_reasons"]
    return cast("GenerateOutput", kept)


def tokens_of(*outputs: GenerateOutput | None) -> Tokens:
    """Add up the tokens and the costs of a row's outputs, as far as the backend reported them."""
    cost: float | None = None
    totals: list[int | None] = [None] * len(_STATISTICS)
    for output in outputs:
        statistics = output.get("statistics") if isinstance(output, dict) else None
        if not isinstance(statistics, dict):
            continue
        if "cost" in statistics:
            cost = _added_cost(cost, statistics["cost"])
        for place, name in enumerate(_STATISTICS):
            counts = statistics.get(name)
            for count in counts if isinstance(counts, list) else ():
                if type(count) is not int or not 0 <= count <= MAX_COUNT:  # of an error's outputs
                    count = count_of(count)
                    if count is None:
                        continue
                total = (totals[place] or 0) + count
                totals[place] = total if total <= MAX_COUNT else None
    *counts, billed_input, billed_output = totals
    return Tokens._make([*counts, cost, billed_input, billed_output])


def _added_cost(total: float | None, costs: Any) -> float | None:
    for cost in costs if isinstance(costs, list) else ():
        if isinstance(cost, (int, float)) and not isinstance(cost, bool) and 0 <= cost <= _MAX_COST:
            total = float((total or 0.0) + cost)
    return total
