"""A stand-in for NVML: the GPUs of a file, which `FAKE_NVML` names, in this process and its children.

The file has a list of GPUs: `uuid`, `free` and `total` in bytes, `mig` with the same of its instances.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_gpus: list[dict[str, Any]] | None = None


class NVMLError(Exception):
    """What NVML says went wrong."""


def nvmlInit() -> None:
    global _gpus
    found = json.loads(Path(os.environ["FAKE_NVML"]).read_text())
    if isinstance(found, str):
        raise NVMLError(found)
    _gpus = found


def nvmlShutdown() -> None:
    global _gpus
    _gpus = None


def nvmlDeviceGetCount() -> int:
    return len(_all())


def nvmlDeviceGetHandleByIndex(index: int) -> dict[str, Any]:
    if _all()[index].get("lost"):
        raise NVMLError("GPU is lost")
    return _all()[index]


def nvmlDeviceGetUUID(handle: dict[str, Any]) -> str:
    return str(handle["uuid"])


def nvmlDeviceGetMemoryInfo(handle: dict[str, Any]) -> Any:
    if "free" not in handle:
        raise NVMLError("Not Supported")
    return SimpleNamespace(free=handle["free"], total=handle["total"], used=handle["total"] - handle["free"])


def nvmlDeviceGetMaxMigDeviceCount(handle: dict[str, Any]) -> int:
    return 7 if handle.get("mig") else 0


def nvmlDeviceGetMigDeviceHandleByIndex(handle: dict[str, Any], number: int) -> dict[str, Any]:
    if number >= len(handle["mig"]):
        raise NVMLError("Not Found")
    instance: dict[str, Any] = handle["mig"][number]
    return instance


def _all() -> list[dict[str, Any]]:
    if _gpus is None:
        raise NVMLError("Uninitialized")
    return _gpus
