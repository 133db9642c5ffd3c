"""Counts in messages agree with what they count."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import stillhouse
from stillhouse._wording import number_of


@pytest.mark.parametrize(
    ("number", "arguments", "text"),
    [
        (0, ("row",), "0 rows"),
        (1, ("row",), "1 row"),
        (1, ("row", "is/are"), "1 row is"),
        (2000, ("row", "is/are"), "2,000 rows are"),
        (2, ("batch",), "2 batches"),
        (2, ("row of the run", "", "rows of the run"), "2 rows of the run"),
    ],
)
def test_number_of(number: int, arguments: tuple[str, ...], text: str) -> None:
    assert number_of(number, *arguments) == text


def test_no_message_of_a_run_writes_the_plural_of_rows_itself() -> None:
    """`{count:,} rows` is wrong for one row. "of N rows" and "the first N rows" follow a number above 1."""
    written = re.compile(r"(?<!the first )(?<!none of the first )(?<!all )\{[^{}]*\} rows\b(?!/)")
    found = [
        f"{path.name}: {line.strip()}"
        for path in Path(stillhouse.__file__).parent.rglob("*.py")
        if {"jobs", "cli"} & {*path.parts}
        for line in path.read_text(encoding="utf-8").splitlines()
        if written.search(line) and "rows == 1" not in line and "if total else" not in line
    ]
    assert found == []
