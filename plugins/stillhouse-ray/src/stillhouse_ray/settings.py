"""`RaySettings`: what the table `[hooks.ray]` of the user's config file may hold."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, Field, field_validator

__all__ = ["RaySettings"]

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RaySettings(BaseModel):
    """What each worker asks the cluster for, and what it gets from this process."""

    num_cpus: Amount = Field(default=1, description="CPUs that Ray reserves for each worker.")
    num_gpus: Amount | None = Field(
        default=None,
        description="GPUs for each worker; a fraction lets several workers share one. "
        "Null means what the backend uses.",
    )
    memory: int | None = Field(
        default=None, ge=1, description="Bytes of memory for each worker; null means no reservation."
    )
    resources: dict[str, Amount] = Field(
        default_factory=dict, description="Custom resources of the cluster for each worker."
    )
    environment: list[str] = Field(
        default_factory=list,
        description="Names of environment variables that the workers get from this process, besides those of "
        "the backend's API key and address.",
    )
    wait_seconds: float = Field(
        default=300,
        gt=0,
        le=86_400,
        description="How long the cluster may take to place the first worker.",
    )
    head_seconds: float = Field(
        default=30,
        gt=0,
        le=3600,
        description="How long the head of the cluster may be out of reach before the run ends.",
    )

    @field_validator("environment")
    @classmethod
    def _are_names(cls, value: list[str]) -> list[str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{name[:80]!r} is not the name of an environment variable")
        return value
