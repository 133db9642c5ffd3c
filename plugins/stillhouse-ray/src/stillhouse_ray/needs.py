"""`Needs`: the resources that each worker asks a cluster for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stillhouse import LLM, ConfigurationError
from stillhouse_ray.nodes import llms_in
from stillhouse_ray.settings import RaySettings

__all__ = ["Needs", "needs_of", "shown"]

_GIB = 2**30


@dataclass(frozen=True)
class Needs:
    """What one worker needs.

    Attributes:
        num_cpus: CPUs.
        num_gpus: GPUs; a fraction is a share of one.
        memory: bytes; 0 reserves none.
        resources: custom resources.
    """

    num_cpus: float = 1
    num_gpus: float = 0
    memory: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def by_name(self) -> dict[str, float]:
        """The same, by Ray's names."""
        found = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": self.memory, **self.resources}
        return {name: amount for name, amount in found.items() if amount}

    @property
    def options(self) -> dict[str, Any]:
        """The same, as options of an actor."""
        options: dict[str, Any] = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        if self.memory:
            options["memory"] = self.memory
        if self.resources:
            options["resources"] = dict(self.resources)
        return options

    def fit(self, available: Mapping[str, float]) -> int:
        """Return how many workers these resources are enough for, if they are not spread too thin."""
        counts = [math.floor(available.get(name, 0) / amount) for name, amount in self.by_name.items()]
        return min(counts, default=1)


def needs_of(llm: LLM, settings: RaySettings) -> Needs:
    """Return what a worker needs: what the backend declares, unless the settings say otherwise.

    Raises:
        ConfigurationError: the LLM names the devices of one machine.
    """
    gpus = settings.num_gpus
    if gpus is None:
        gpus = 0
        for member in llms_in(llm):
            if getattr(member, "cuda_devices", None) not in ("auto", None, []):
                raise ConfigurationError(
                    f"cuda_devices of {type(member).__name__} names the devices of one machine, and Ray "
                    "gives each worker devices of its node",
                    hint="leave cuda_devices out",
                )
            count = getattr(member, "num_cuda_devices", None)
            gpus += count() if count is not None else 0
    if gpus > 1 and gpus != int(gpus):
        raise ConfigurationError(f"num_gpus is {gpus}", hint="give a whole number, or a fraction of one GPU")
    return Needs(settings.num_cpus, gpus, settings.memory or 0, settings.resources)


def shown(resources: Mapping[str, float]) -> str:
    """Return resources as words, such as `2 CPU, 1 GPU`."""
    names = [name for name in resources if not name.startswith(("node:", "object_store_memory"))]
    parts = [
        f"{resources[name] / _GIB:.1f} GiB memory" if name == "memory" else f"{resources[name]:g} {name}"
        for name in sorted(names)
    ]
    return ", ".join(parts) or "nothing"
