"""A module of more than 300 lines, and a function of more than 60, is asked why."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import stillhouse

PACKAGE = Path(stillhouse.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

MAX_LINES = 300
MAX_FUNCTION_LINES = 60
# How the last paragraph of a module's docstring begins that says why it is longer.
REASON = "Over 300 lines: "


@pytest.mark.parametrize("module", MODULES)
def test_a_long_module_says_why_it_is_long(module: str) -> None:
    text = (PACKAGE / module).read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    is_long = len(text.splitlines()) > MAX_LINES
    assert docstring.split("\n\n")[-1].startswith(REASON) == is_long, (
        f"{module} has {len(text.splitlines())} lines: split it, or end its docstring with '{REASON}…'"
        if is_long
        else f"{module} is not long any more: take its reason out"
    )


def functions(module: str) -> Iterator[tuple[str, int]]:
    """Each function's name, and the lines from its first statement on, its docstring left out."""
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body:
                yield node.name, (node.end_lineno or 0) - body[0].lineno + 1


@pytest.mark.parametrize("module", MODULES)
def test_a_function_fits_on_a_screen(module: str) -> None:
    assert [name for name, lines in functions(module) if lines > MAX_FUNCTION_LINES] == []
