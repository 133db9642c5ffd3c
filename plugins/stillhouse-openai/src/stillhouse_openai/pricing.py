"""The prices and limits that some providers have in their lists of models."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from stillhouse.typing import ModelInfo

__all__ = ["with_prices"]

_PER_MILLION = 1e6


def with_prices(
    answer: Any, models: Iterable[ModelInfo], keys: tuple[str, str], *, are_of_one_token: bool = False
) -> Iterator[ModelInfo]:
    """Yield the models of a list with their prices, and the most that a generation may have.

    Args:
        answer: the list, as the server sent it.
        models: what was read of it so far, one for each of its entries.
        keys: of the prices of input and of output, in the `pricing` of an entry.
        are_of_one_token: whether the prices are those of one token, and not of a million.
    """
    entries = answer if isinstance(answer, list) else answer.get("data") or ()
    for entry, model in zip(entries, models, strict=True):
        made: dict[str, Any] = {**model}
        if isinstance(entry, dict):
            prices, limits = entry.get("pricing"), entry.get("top_provider")
            if isinstance(prices, Mapping):
                for name, key in zip(("input_price", "output_price"), keys, strict=True):
                    made[name] = _price(prices.get(key), _PER_MILLION if are_of_one_token else 1.0)
            if isinstance(limits, Mapping) and limits.get("max_completion_tokens"):
                made["max_new_tokens"] = limits["max_completion_tokens"]
        yield cast(ModelInfo, {name: value for name, value in made.items() if value is not None})


def _price(given: Any, factor: float) -> float | None:
    """Return a price; texts are read as numbers, and a negative one means that there is none."""
    try:
        value = float(given) * factor
    except (OverflowError, TypeError, ValueError):
        return None
    return round(value, 6) if 0 <= value < math.inf else None
