"""axe, which checks the accessibility of pages: where npm has installed it, as it is no part of the project."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

__all__ = ["AXE", "audit"]

AXE = "axe-core@4.14.1"

_RUN = """async () => (await axe.run(document, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], resultTypes: ["violations"],
})).violations.flatMap((found) => found.nodes.map((node) => [found.id, String(node.target), node.failureSummary].join(" | ")))"""


@functools.cache
def _source() -> str | None:
    npm = shutil.which("npm")
    if npm is None:
        return None
    ended = subprocess.run([npm, "root", "--global"], capture_output=True, text=True, timeout=60)
    path = Path(ended.stdout.strip()) / "axe-core/axe.min.js"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def audit(page: Any) -> list[str]:
    """Return what axe finds against WCAG 2.2 AA in a page, each with its element; skip the test without axe."""
    source = _source()
    if source is None:
        pytest.skip(f"axe is missing: npm install --global {AXE}")
    # A script of the page would be refused by its policy; what the driver evaluates is not.
    page.evaluate(source)
    found: list[str] = page.evaluate(_RUN)
    return found
