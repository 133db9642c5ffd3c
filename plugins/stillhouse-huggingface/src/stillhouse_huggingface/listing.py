"""The models that the router has, from its list."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from stillhouse.http import string_of
from stillhouse.outputs import count_of

__all__ = ["models_of"]


def models_of(answer: Any) -> Iterator[dict[str, Any]]:
    """The models of an answer of `models`, and each again with every provider that serves it now.

    A model by itself has no price and no context: they are those of the provider that the router chooses.
    """
    for model in answer["data"]:
        name = string_of(model.get("id"))
        if name is None:
            continue
        created = _date(model.get("created"))
        providers = model.get("providers")
        own = _details(model) if not providers else {}
        yield {"name": name, **created, **own}
        for provider in providers if isinstance(providers, list) else ():
            if not isinstance(provider, dict) or provider.get("status", "live") != "live":
                continue
            place = string_of(provider.get("provider"))
            if place is not None:
                yield {"name": f"{name}:{place}", **created, **_details(provider)}


def _details(given: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    length = count_of(given.get("context_length") or given.get("max_model_len"))
    if length:
        found["context_length"] = length
    pricing = given.get("pricing")
    for name in ("input", "output"):
        price = pricing.get(name) if isinstance(pricing, dict) else None
        if isinstance(price, (int, float)) and not isinstance(price, bool) and price >= 0:
            found[f"{name}_price"] = float(price)
    return found


def _date(seconds: Any) -> dict[str, str]:
    if type(seconds) not in (int, float) or not 0 < seconds < 1e11:
        return {}
    return {"created": datetime.fromtimestamp(seconds, UTC).date().isoformat()}
