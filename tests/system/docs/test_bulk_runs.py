"""The page on bulk runs agrees with the code."""

from __future__ import annotations

import re

from stillhouse.errors import ERROR_KINDS
from stillhouse.jobs.spending.budget import _REFUSED

from .steps import DOCS

PAGE = DOCS / "bulk-runs.md"


def test_page_lists_the_error_kinds_that_cost_nothing() -> None:
    text = PAGE.read_text(encoding="utf-8")
    told = re.search(r"the server refused\n  \((.*?)\)", text)
    assert told is not None
    kinds = set(re.findall(r"`(\w+)`", told[1]))
    # A refused key ends the run, and a row that is no input is not sent.
    assert kinds | {"authentication", "invalid_input"} == _REFUSED
    assert set(ERROR_KINDS) >= _REFUSED
