"""What every benchmark here does in the same way: name the machine, alternate, quote medians."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["alternate", "command_seconds", "machine", "median", "print_rows"]


def machine() -> str:
    """The machine, in a line: processor, cores, system, Python."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, {python}"


def alternate(subjects: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure each subject once a round, in turn, so that a slow minute meets all of them.

    One round before the first is not counted.
    """
    readings: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        for name, measure in subjects.items():
            reading = measure()
            if number:
                readings[name].append(reading)
    return readings


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def command_seconds(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> float:
    """How long a command takes, from start to exit; its output is read and thrown away."""
    started = time.perf_counter()
    result = subprocess.run(command, env=env, capture_output=True, check=False)
    seconds = time.perf_counter() - started
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{result.stderr.decode()}")
    return seconds


def print_rows(title: str, readings: Mapping[str, Sequence[float]], unit: str, scale: float = 1.0) -> None:
    """Median, least and most of each subject."""
    print(f"\n{title} (median, min, max; {unit})")
    width = max(map(len, readings))
    for name, values in readings.items():
        shown = (median(values) * scale, min(values) * scale, max(values) * scale)
        print(f"  {name.ljust(width)}  {shown[0]:10.2f} {shown[1]:10.2f} {shown[2]:10.2f}")
