"""Reading the lists of models and of inference profiles; what is odd in them becomes no model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from stillhouse.typing import ModelInfo

__all__ = ["models_in", "page_after", "profiles_in"]


def models_in(answer: Any) -> Iterator[ModelInfo]:
    """The models that write text, and can be asked by their own ids."""
    for model in answer["modelSummaries"]:
        if "TEXT" not in model.get("outputModalities", ["TEXT"]):
            continue
        if "ON_DEMAND" not in model.get("inferenceTypesSupported", ["ON_DEMAND"]):
            continue  # there is a profile to ask it by, or it must be bought first
        created = (model.get("modelLifecycle") or {}).get("startOfLifeTime")
        yield cast("ModelInfo", {"name": model.get("modelId"), "created": created})


def profiles_in(answer: Any) -> Iterator[ModelInfo]:
    """The inference profiles that are in use."""
    for profile in answer["inferenceProfileSummaries"]:
        if profile.get("status", "ACTIVE") == "ACTIVE":
            id, created = profile.get("inferenceProfileId"), profile.get("createdAt")
            yield cast("ModelInfo", {"name": id, "created": created})


def page_after(answer: Any) -> dict[str, str | int] | None:
    """The query of the next page of profiles."""
    token = answer.get("nextToken")
    return {"nextToken": token} if token else None
