"""How much memory this process may have."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

__all__ = ["memory_size"]

_CGROUPS = Path("/sys/fs/cgroup")


def memory_size() -> int:
    """Return the bytes that this process may have: of the machine, or what it is limited to.

    A container is limited by its control group, and a batch system limits by `ulimit -v`.
    """
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([pages, *_groups(), *_limits()])


def _limits() -> list[int]:
    resource: Any = importlib.import_module("resource")
    soft = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return [limit for limit in soft if limit != resource.RLIM_INFINITY]


def _groups() -> list[int]:
    """The limits of the control group of this process, and of those that it is in."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            root, file = _CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, file = _CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = root / name.lstrip("/")
        for folder in (group, *group.parents):
            try:
                text = (folder / file).read_text(encoding="utf-8").strip()
            except OSError:
                text = ""
            if text.isdecimal():
                found.append(int(text))
            if folder == root:
                break
    return found
