"""What tests of deaths have in common: inputs, notes of what was asked, and what may have been asked again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 180
"""How long anything may take on a busy machine."""


def write(path: Path, prompts: list[str], **more: Any) -> Path:
    """Write a file with a row for each prompt; all have the other columns."""
    rows = [{"id": number, "prompt": text, **more} for number, text in enumerate(prompts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def until(holds: Callable[[], Any]) -> None:
    ends = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < ends, "it has not happened"
        time.sleep(0.02)


def asked(notes: Path) -> list[tuple[int, str]]:
    """What was asked: the process, and the prompt."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [(int(process), text) for process, text in (line.split(" ", 1) for line in lines)]


def lives(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def only_the_dead_were_asked_in_vain(found: list[tuple[int, str]], dead: int | set[int]) -> None:
    """Whatever was asked again had been asked of a worker that died.

    Args:
        found: what was asked.
        dead: how many workers died, or which.
    """
    processes: dict[str, list[int]] = {}
    for process, text in found:
        processes.setdefault(text, []).append(process)
    in_vain = {process for asked in processes.values() for process in asked[:-1]}
    assert len(in_vain) <= dead if isinstance(dead, int) else in_vain <= dead, (in_vain, dead)
