"""The CUDA devices of this host that this process may use, as NVML and `CUDA_VISIBLE_DEVICES` have them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError

__all__ = ["INSTALL", "VARIABLE", "Device", "devices_named", "visible"]

VARIABLE = "CUDA_VISIBLE_DEVICES"

INSTALL = install_command("stillhouse[cuda]")

_NUMBER = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True)
class Device:
    """A device that this process may use: a GPU, or a MIG instance of one.

    Attributes:
        index: the number that NVML and nvidia-smi give the GPU.
        uuid: the identity of the device on any host, `GPU-…` or `MIG-…`.
        name: what stands for it in a child's `CUDA_VISIBLE_DEVICES`.
        ordinal: the N of `cuda:N` in this process.
        free: bytes of its memory that nobody uses; `None` if unknown.
        total: bytes of its memory; `None` if unknown.
    """

    index: int
    uuid: str
    name: str
    ordinal: int
    free: int | None = None
    total: int | None = None


def visible() -> list[Device]:
    """The devices that this process may use, in the order in which CUDA numbers them.

    Raises:
        ConfigurationError: NVML is missing or fails.
    """
    own = os.environ.get(VARIABLE)
    with _nvml() as nvml:
        handles = [_asked(nvml, nvml.nvmlDeviceGetHandleByIndex, i) for i in range(nvml.nvmlDeviceGetCount())]
        uuids = [_uuid(nvml, handle) for handle in handles]
        instances: dict[str, tuple[int, Any]] = {}
        if own is not None and own.strip().startswith("MIG-"):
            instances = {uuid: (i, found) for i, gpu in enumerate(handles) for uuid, found in _mig(nvml, gpu)}
        devices = []
        for ordinal, (uuid, name) in enumerate(devices_named(own, uuids, list(instances))):
            if uuid:  # else it is lost, or this user may not ask about it
                index, handle = instances.get(uuid) or (uuids.index(uuid), handles[uuids.index(uuid)])
                memory = _asked(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
                free, total = getattr(memory, "free", None), getattr(memory, "total", None)
                devices.append(Device(index, uuid, name, ordinal, free, total))
        return devices


def devices_named(
    value: str | None, gpus: Sequence[str], instances: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """The devices that a value of `CUDA_VISIBLE_DEVICES` stands for, read as CUDA reads it.

    Indices and UUIDs do not mix; a UUID may be cut short as long as one device alone begins with it; an
    entry that names none hides what follows it; a device that is named twice hides all.

    Args:
        value: the value; `None` if the variable is not set.
        gpus: the UUIDs of the GPUs; empty for one that cannot be asked.
        instances: the UUIDs of the MIG instances.

    Returns:
        Of each device its UUID, and what stands for it in a child's `CUDA_VISIBLE_DEVICES`. An index
        remains one: CUDA may count the GPUs in another order than NVML, but parent and child alike.
    """
    if value is None:
        return [(uuid, uuid or str(index)) for index, uuid in enumerate(gpus)]
    entries = [entry.strip() for entry in value.split(",")]
    found: list[tuple[str, str]] = []
    for prefix, known in (("GPU-", gpus), ("MIG-", instances)):
        if entries[0].startswith(prefix):
            entries = _until(entries, lambda entry: entry.startswith(prefix))  # noqa: B023
            for entry in entries:
                fitting = [uuid for uuid in known if uuid.startswith(entry)]
                if len(fitting) != 1:
                    break
                found.append((fitting[0], fitting[0]))
            break
    else:
        numbers = _until([_number(entry) for entry in entries], lambda number: number >= 0)
        entries = [str(number) for number in numbers]
        found = [(gpus[number], str(number)) for number in _until(numbers, lambda number: number < len(gpus))]
    names = [name for _, name in found]
    if len(set(entries)) < len(entries) or len(set(names)) < len(names):
        return []
    return found


def _until(items: list[Any], holds: Callable[[Any], bool]) -> list[Any]:
    end = next((position for position, item in enumerate(items) if not holds(item)), len(items))
    return items[:end]


def _number(entry: str) -> int:
    """The number that an entry begins with, and −1 if it begins with none."""
    digits = _NUMBER.match(entry)
    # The longest numbers are not read: Python refuses those of thousands of digits.
    return -1 if digits is None else int(digits[0][:18])


@contextmanager
def _nvml() -> Iterator[Any]:
    try:
        import pynvml
    except ImportError:
        raise ConfigurationError("placing LLMs on CUDA devices needs NVML", hint=INSTALL) from None
    try:
        pynvml.nvmlInit()
        try:
            yield pynvml
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise ConfigurationError(
            f"NVML finds no CUDA device: {error}",
            hint="check nvidia-smi, or set disable_cuda_device_placement to True",
        ) from None


def _asked(nvml: Any, question: Callable[..., Any], *arguments: Any) -> Any:
    """What NVML answers; `None` if it does not know, or the device is lost."""
    try:
        return question(*arguments)
    except nvml.NVMLError:
        return None


def _uuid(nvml: Any, handle: Any) -> str:
    if handle is None:
        return ""
    uuid = _asked(nvml, nvml.nvmlDeviceGetUUID, handle)
    return (uuid.decode() if isinstance(uuid, bytes) else uuid) or ""


def _mig(nvml: Any, gpu: Any) -> Iterator[tuple[str, Any]]:
    """The MIG instances of a GPU: UUIDs and handles. A GPU that has none says that it does not know."""
    if gpu is not None:
        for number in range(_asked(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, gpu) or 0):
            handle = _asked(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, number)
            if uuid := _uuid(nvml, handle):
                yield uuid, handle
