"""The models that the router has, from its list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["models_of"]


def models_of(answer: Any) -> Iterator[dict[str, Any]]:
    """The models of an answer of `models`, and each again with every provider that serves it now.

    A model by itself has no price and no context: they are those of the provider that the router chooses.
    What is read is not checked.
    """
    for model in answer["data"]:
        if not isinstance(model, dict):
            continue
        name, created, providers = model.get("id"), model.get("created"), model.get("providers")
        own = {} if providers else _details(model)
        yield {"name": name, "created": created, **own}
        for provider in providers if isinstance(providers, list) else ():
            place = provider.get("provider") if isinstance(provider, dict) else None
            if isinstance(place, str) and provider.get("status", "live") == "live":
                yield {"name": f"{name}:{place}", "created": created, **_details(provider)}


def _details(given: dict[str, Any]) -> dict[str, Any]:
    pricing = given.get("pricing")
    prices = pricing if isinstance(pricing, dict) else {}
    return {
        "context_length": given.get("context_length") or given.get("max_model_len"),
        "input_price": prices.get("input"),
        "output_price": prices.get("output"),
    }
