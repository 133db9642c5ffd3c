"""The engine's threads: how many compute, and how they wait for each other."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["brief_waits", "usable_cores"]

# How often a thread looks whether the others have arrived before it sleeps: microseconds. See README.md for
# what was measured.
SPIN_COUNT = 300

_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@contextlib.contextmanager
def brief_waits() -> Iterator[None]:
    """Let the threads of an engine that is imported within the block sleep when a wait is not a brief one.

    The threads wait for each other hundreds of times for each token. GNU's OpenMP, which the engine's
    wheels for Linux compute with, lets a thread spin for milliseconds first. Where another program has
    taken a core, the thread that is waited for does not run meanwhile, and an answer takes a hundred times
    as long.

    The library reads the variable once, when it is loaded; it is set for that long. Those that are set
    already are the user's, and stay as they are.
    """
    if any(name in os.environ for name in _VARIABLES):
        yield
        return
    os.environ[_VARIABLES[0]] = str(SPIN_COUNT)
    try:
        yield
    finally:
        os.environ.pop(_VARIABLES[0], None)


def usable_cores() -> int | None:
    """Return how many cores this process may use, if the engine would compute with more.

    The engine counts the cores of the machine; a container or `taskset` may have fewer for a process.

    Returns:
        The number of whole cores, at least 1; `None` where the process may use all of them, or where the
        system does not say.
    """
    if sys.platform != "linux":
        return None
    mine = os.sched_getaffinity(0)
    cores = {_siblings(processor) for processor in mine}
    quota = _quota()
    if len(mine) == os.cpu_count() and (quota is None or quota >= len(cores)):
        return None
    return len(cores) if quota is None else min(len(cores), math.ceil(quota))


def _siblings(processor: int) -> str:
    """Return what names the core of a processor: cores have several processors with hyper-threading."""
    try:
        return (
            Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list").read_text().strip()
        )
    except OSError:
        return str(processor)


def _quota() -> float | None:
    """Return how many processors the control group of this process may use at a time; `None` for no limit."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            folder = Path("/sys/fs/cgroup/cpu")
            limit, period = (
                (folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )
        except OSError:
            return None
    try:
        return int(limit) / int(period) if int(limit) > 0 and int(period) > 0 else None
    except ValueError:  # "max"
        return None
