"""Placement of the LLMs of a host on its CUDA devices, so that no two use the same device.

A map that all processes of a user share records which LLM holds which devices. No environment variable is
changed: a backend passes `cuda_ordinals` to an engine in this process, or `cuda_environment()` to a child
process.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections import Counter
from typing import Literal

from pydantic import Field, PrivateAttr

from stillhouse._execution.lifecycle import Holder
from stillhouse._settings.runtime import RuntimeParameter
from stillhouse.errors import ConfigurationError
from stillhouse.local.devices import VARIABLE, Device, visible
from stillhouse.local.placements import Holding, holding_of, holdings

__all__ = ["CudaDevicePlacementMixin", "visible_devices"]

_logger = logging.getLogger("stillhouse.cuda")


def visible_devices() -> list[int]:
    """Return the indices, as in nvidia-smi, of the devices that this process may use.

    They are in the order in which CUDA numbers the devices in this process. `CUDA_VISIBLE_DEVICES` is read
    as CUDA reads it: it may name devices by index, by UUID, or by the id of a MIG instance.

    Raises:
        ConfigurationError: NVML is missing or fails.
    """
    return [device.index for device in visible()]


class CudaDevicePlacementMixin(Holder):
    """Device placement for backends that run an engine on CUDA devices in this process or a child.

    The backend's `load()` calls `super().load()`, or this class's `load`, before it starts its engine.
    `unload()` releases the devices. A backend whose engine can also run without CUDA overrides `uses_cuda`;
    a backend that needs several devices sets `_desired_num_gpus`.
    """

    cuda_devices: RuntimeParameter[list[int] | Literal["auto"]] = Field(
        default="auto",
        description="The indices of the CUDA devices to use, as in nvidia-smi, "
        'or "auto" for the devices with the fewest LLMs.',
    )
    disable_cuda_device_placement: RuntimeParameter[bool] = Field(
        default=False, description="Whether to leave the choice of devices to the engine."
    )

    _desired_num_gpus: int = PrivateAttr(default=1)
    _is_placed: bool = PrivateAttr(default=False)
    _placement: str | None = PrivateAttr(default=None)
    _held_devices: list[Device] = PrivateAttr(default_factory=list)

    def uses_cuda(self) -> bool:
        """Whether the engine runs on CUDA devices, on this machine and with these fields; read once per load.

        If not, no device is placed, NVML is not needed, and no map is written.
        """
        return True

    def num_cuda_devices(self) -> int:
        """How many CUDA devices the engine uses on a machine that has them; 0 if it uses none.

        An executor that places workers on other machines reserves as many for each. It is called before
        `load()`, on a machine that may have no devices. A backend with several, or with none, overrides it.
        """
        return self._desired_num_gpus if self.cuda_devices in ("auto", None) else len(self.cuda_devices or ())

    @property
    def cuda_device_ids(self) -> list[int]:
        """The indices, as in nvidia-smi, of the devices that this LLM holds; empty before `load()`."""
        return [device.index for device in self._held_devices]

    @property
    def cuda_device_names(self) -> list[str]:
        """The names of the held devices for the `CUDA_VISIBLE_DEVICES` of a child process.

        They are UUIDs, or the indices that this process's own variable uses.
        """
        return [device.name for device in self._held_devices]

    @property
    def cuda_ordinals(self) -> list[int]:
        """The numbers of the held devices in this process: the N of `cuda:N`.

        CUDA and NVML number devices alike if all GPUs of the host are of one kind, if `CUDA_VISIBLE_DEVICES`
        is set, or if `CUDA_DEVICE_ORDER` is `PCI_BUS_ID`.
        """
        return [device.ordinal for device in self._held_devices]

    def cuda_environment(self) -> dict[str, str]:
        """Return the environment for a child process that sees only this LLM's devices."""
        if not self._held_devices and not (self._is_placed and self.cuda_devices == []):
            return dict(os.environ)
        return {**os.environ, VARIABLE: ",".join(self.cuda_device_names)}

    def load(self) -> None:
        """Acquire the devices now; otherwise the LLM's own `load()` acquires them, perhaps later."""
        super().load()
        self._place()

    def unload(self) -> None:
        """Release the devices."""
        self._give_back()
        super().unload()

    def _acquire(self) -> None:
        super()._acquire()
        self._place()

    def _release(self) -> None:
        try:
            self._give_back()
        finally:
            super()._release()

    def _place(self) -> None:
        """Take devices: those of `cuda_devices`, or those that the fewest hold.

        Raises:
            ConfigurationError: a device does not exist, or is not visible to this process.
        """
        if self.disable_cuda_device_placement or self._is_placed:
            return
        name = type(self).__name__
        if not self.uses_cuda():
            if self.cuda_devices not in ("auto", None, []):
                raise ConfigurationError(
                    f"cuda_devices is {self.cuda_devices}, and the engine of {name} does not use CUDA here",
                    hint="leave cuda_devices out, or choose a CUDA device for the engine",
                )
        elif self.cuda_devices != []:
            devices = visible()
            with holdings() as held:
                chosen = self._chosen(devices, held)
                # Drawn here, not at construction: a copy or a pickle of this LLM is another holder.
                placement = uuid.uuid4().hex
                if chosen:
                    held[placement] = holding_of(name, [device.uuid for device in chosen])
            self._placement, self._held_devices = placement, chosen
        self._is_placed = True

    def _chosen(self, devices: list[Device], held: dict[str, Holding]) -> list[Device]:
        name = type(self).__name__
        if self.cuda_devices in ("auto", None):
            chosen = _least_held(devices, held)[: self._desired_num_gpus]
            chosen.sort(key=lambda device: device.ordinal)
            if len(chosen) < self._desired_num_gpus:
                _logger.warning(
                    "%s needs %d CUDA devices, and %d are visible; CUDA_VISIBLE_DEVICES is %r",
                    name,
                    self._desired_num_gpus,
                    len(devices),
                    os.environ.get(VARIABLE),
                )
        else:
            chosen = []
            for index in self.cuda_devices or ():
                # Several MIG instances of one GPU have its index.
                fitting = [device for device in devices if device.index == index and device not in chosen]
                if not fitting:
                    indices = [device.index for device in devices]
                    raise ConfigurationError(
                        f"cuda_devices names device {index} twice: {self.cuda_devices}"
                        if index in indices
                        else f"there is no CUDA device {index}; visible are {indices}",
                        hint=f"correct cuda_devices, or {VARIABLE}",
                    )
                chosen.append(_least_held(fitting, held)[0])
        others = {device: holding["llm"] for holding in held.values() for device in holding["devices"]}
        for device in chosen:
            if device.uuid in others:
                _logger.warning("CUDA device %d is held by %s too", device.index, others[device.uuid])
        return chosen

    def _give_back(self) -> None:
        placement, self._placement = self._placement, None
        self._is_placed, self._held_devices = False, []
        if placement is None:
            return
        try:
            with holdings() as held:
                # In a forked child, the devices are still the parent's.
                if placement in held and held[placement]["pid"] == os.getpid():
                    del held[placement]
        except ConfigurationError as error:  # the entry ends with this process
            _logger.warning("the CUDA devices of %s were not given back: %s", type(self).__name__, error)


def _least_held(devices: list[Device], held: dict[str, Holding]) -> list[Device]:
    """The devices, those with the fewest holders first, and among them those with the most free memory.

    What other users hold shows in the memory alone: a device that is all but full has a holder.
    """
    holders = Counter(device for holding in held.values() for device in holding["devices"])

    def rank(device: Device) -> tuple[int, int]:
        free = device.free or 0
        is_full = device.free is not None and free < (device.total or 0) / 10
        return max(holders[device.uuid], int(is_full)), -free

    return sorted(devices, key=rank)
