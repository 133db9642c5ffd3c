"""Stillhouse on a Ray cluster: the executor `ray`, whose workers are actors, and a stage of Ray Data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillhouse_ray.hooks import RayHooks

if TYPE_CHECKING:
    from stillhouse_ray.stage import GenerateStage as GenerateStage

__all__ = ["GenerateStage", "RayHooks", "plugin"]

plugin = RayHooks()
"""What the entry point names."""


def __getattr__(name: str) -> Any:
    # Hooks are imported for every command, which needs no stage.
    if name != "GenerateStage":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from stillhouse_ray.stage import GenerateStage

    return GenerateStage
