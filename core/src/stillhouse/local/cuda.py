"""Placing the LLMs of one host on its CUDA devices, so that no two take the same one.

Who holds which device is a JSON file in the temporary folder, under a lock. An entry belongs to
one LLM of one process and counts for nothing once that process is gone. No environment variable is
changed: a backend hands `cuda_device_ids` to its engine, or `cuda_environment()` to a child process.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from stillhouse._execution.lifecycle import Holder
from stillhouse._settings.runtime import RuntimeParameter
from stillhouse.errors import ConfigurationError

__all__ = ["CudaDevicePlacementMixin", "visible_devices"]

_logger = logging.getLogger("stillhouse.cuda")

_INSTALL = 'pip install "stillhouse[cuda]"'


def visible_devices() -> list[int]:
    """The indices of the devices that this process may use; those of `CUDA_VISIBLE_DEVICES` if set.

    Raises:
        ConfigurationError: NVML is missing or fails, or the variable holds no indices.
    """
    own = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = _device_count()
    if own is None:
        return list(range(count))
    listed = [item.strip() for item in own.split(",") if item.strip()]
    if not all(item.isdigit() for item in listed):
        raise ConfigurationError(
            f"CUDA_VISIBLE_DEVICES is {own!r}, and only indices can be placed",
            hint="set it to indices, or set disable_cuda_device_placement to True",
        )
    return [int(item) for item in listed if int(item) < count]


def _device_count() -> int:
    try:
        import pynvml
    except ImportError:
        raise ConfigurationError("placing LLMs on CUDA devices needs NVML", hint=_INSTALL) from None
    try:
        pynvml.nvmlInit()
        try:
            return int(pynvml.nvmlDeviceGetCount())
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise ConfigurationError(
            f"NVML finds no CUDA device: {error}",
            hint="check nvidia-smi, or set disable_cuda_device_placement to True",
        ) from None


class CudaDevicePlacementMixin(Holder):
    """Device placement for backends that run an engine on CUDA devices in this process or a child.

    `load()` of the backend calls `super().load()`, or this class's `load`, before it starts its
    engine. `unload()` gives the devices back.
    """

    cuda_devices: RuntimeParameter[list[int] | Literal["auto"]] = Field(
        default="auto",
        description='The indices of the CUDA devices to run on, or "auto" for the first free ones.',
    )
    disable_cuda_device_placement: RuntimeParameter[bool] = Field(
        default=False, description="Whether to leave the choice of devices to the engine."
    )

    _desired_num_gpus: int = PrivateAttr(default=1)
    _placement: str | None = PrivateAttr(default=None)
    _cuda_device_ids: list[int] = PrivateAttr(default_factory=list)

    @property
    def cuda_device_ids(self) -> list[int]:
        """The indices of the devices that this LLM holds; empty before `load()`."""
        return list(self._cuda_device_ids)

    def cuda_environment(self) -> dict[str, str]:
        """The environment for a child process that must see only this LLM's devices."""
        if not self._cuda_device_ids:
            return dict(os.environ)
        listed = ",".join(str(device) for device in self._cuda_device_ids)
        return {**os.environ, "CUDA_VISIBLE_DEVICES": listed}

    def load(self) -> None:
        """Take the devices now; the LLM's own `load()` would do it too, perhaps later."""
        super().load()
        self._place()

    def unload(self) -> None:
        """Give the devices back."""
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
        """Take devices: those of `cuda_devices`, or the first free ones.

        Raises:
            ConfigurationError: a device does not exist, or is not visible to this process.
        """
        if self.disable_cuda_device_placement or self._placement is not None:
            return
        visible = visible_devices()
        with _placements() as placements:
            others = {device: entry["llm"] for entry in placements.values() for device in entry["devices"]}
            if self.cuda_devices == "auto":
                chosen = [device for device in visible if device not in others]
                chosen = chosen[: self._desired_num_gpus]
                if len(chosen) < self._desired_num_gpus:
                    _logger.warning(
                        "%s wants %d CUDA devices, and %d of %d are free",
                        type(self).__name__,
                        self._desired_num_gpus,
                        len(chosen),
                        len(visible),
                    )
            else:
                chosen = list(self.cuda_devices or ())
                for device in chosen:
                    if device not in visible:
                        raise ConfigurationError(
                            f"there is no CUDA device {device}; visible are {visible}",
                            hint="correct cuda_devices, or CUDA_VISIBLE_DEVICES",
                        )
                    if device in others:
                        _logger.warning("CUDA device %d is held by %s too", device, others[device])
            # Drawn here, not at construction: a copy or a pickle of this LLM is another holder.
            placement = uuid.uuid4().hex
            placements[placement] = {
                "llm": type(self).__name__,
                "devices": chosen,
                **_this_process(),
            }
        self._placement, self._cuda_device_ids = placement, chosen

    def _give_back(self) -> None:
        if self._placement is not None:
            with _placements() as placements:
                placements.pop(self._placement, None)
            self._placement, self._cuda_device_ids = None, []


def _this_process() -> dict[str, Any]:
    import psutil

    return {"pid": os.getpid(), "started": psutil.Process().create_time()}


def _is_alive(entry: dict[str, Any]) -> bool:
    """Whether the process of an entry lives; its start time distinguishes a reused process number."""
    import psutil

    try:
        started: float = psutil.Process(entry["pid"]).create_time()
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
    return abs(started - float(entry["started"])) < 1.0


@contextmanager
def _placements() -> Iterator[dict[str, dict[str, Any]]]:
    """The map of who holds which device, locked, without dead processes; written back at the end."""
    try:
        from filelock import FileLock
    except ImportError:
        raise ConfigurationError("placing LLMs on CUDA devices needs filelock", hint=_INSTALL) from None
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    path = Path(tempfile.gettempdir()) / f"stillhouse-cuda-{user}.json"
    with FileLock(f"{path}.lock"):
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            alive = {key: entry for key, entry in stored.items() if _is_alive(entry)}
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            alive = {}  # there is no map yet, or a crash left half of one
        yield alive
        path.write_text(json.dumps(alive), encoding="utf-8")
