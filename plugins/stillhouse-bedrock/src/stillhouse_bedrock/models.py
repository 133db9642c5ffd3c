"""Reading the lists of models and of inference profiles; what is odd in them becomes no model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from stillhouse.typing import ModelInfo

__all__ = ["models_in", "page_after"]


def models_in(answer: Any) -> Iterator[ModelInfo]:
    """The models that write text and can be asked by their own ids, or the inference profiles in use."""
    profiles = answer.get("inferenceProfileSummaries")
    for profile in filter(_is_object, profiles or ()):
        if profile.get("status", "ACTIVE") == "ACTIVE":
            yield _info(profile.get("inferenceProfileId"), profile.get("createdAt"))
    for model in filter(_is_object, answer["modelSummaries"] if profiles is None else ()):
        if "TEXT" not in model.get("outputModalities", ["TEXT"]):
            continue
        if "ON_DEMAND" not in model.get("inferenceTypesSupported", ["ON_DEMAND"]):
            continue  # there is a profile to ask it by, or it must be bought first
        yield _info(model.get("modelId"), (model.get("modelLifecycle") or {}).get("startOfLifeTime"))


def _is_object(entry: Any) -> bool:
    return isinstance(entry, dict)


def _info(name: Any, created: Any) -> ModelInfo:
    return cast("ModelInfo", {"name": name, "created": created})


def page_after(answer: Any) -> dict[str, str | int] | None:
    """The query of the next page of profiles."""
    token = answer.get("nextToken")
    return {"nextToken": token} if token else None
