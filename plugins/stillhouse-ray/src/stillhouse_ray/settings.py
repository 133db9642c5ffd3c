"""`RaySettings`: what the table `[hooks.ray]` of the user's config file may hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

__all__ = ["RaySettings"]

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RaySettings(BaseModel):
    """What each worker asks the cluster for."""

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
