"""The page about the hooks, against the hooks."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from stillhouse import hookspecs

PAGE = Path(__file__).parents[3] / "docs" / "hooks.md"


def test_every_hook_is_there_with_its_signature() -> None:
    text = PAGE.read_text(encoding="utf-8")
    told = {
        name: [item for item in arguments.split(", ") if item]
        for name, arguments in re.findall(r"^\| `(\w+)\((.*?)\)`", text, re.M)
    }
    hooks = {
        name: list(inspect.signature(spec).parameters)
        for name, spec in vars(hookspecs).items()
        if hasattr(spec, f"{hookspecs.PROJECT}_spec")
    }
    assert told == hooks
