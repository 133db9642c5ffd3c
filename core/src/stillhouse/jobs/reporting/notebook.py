"""The progress of a run in a notebook: one bar below the cell, updated in its place."""

from __future__ import annotations

import html
import importlib
import sys
from typing import Any

from stillhouse.jobs.reporting.progress import Progress

__all__ = ["NotebookBar", "is_notebook"]


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook; nothing is imported to find out."""
    module: Any = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return getattr(shell, "kernel", None) is not None


class NotebookBar:
    """A bar below the cell, with the line that says the same on a terminal."""

    def __init__(self) -> None:
        module: Any = importlib.import_module("IPython.display")
        self._page = module.HTML
        self._handle = module.display(self._page(_bar(None)), display_id=True)

    def __call__(self, progress: Progress) -> None:
        self._handle.update(self._page(_bar(progress)))


def _bar(progress: Progress | None) -> str:
    share = None if progress is None else progress.share
    value = "" if share is None else f' value="{share:.4f}"'
    text = "starting" if progress is None else str(progress)
    return f'<progress max="1"{value} style="width: 20em"></progress> {html.escape(text)}'
