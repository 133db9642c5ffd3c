"""The examples in the docstrings of the members that callers use most print what they say."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

import stillhouse

MEMBERS = [
    stillhouse.create,
    stillhouse.run,
    stillhouse.LLM.load,
    stillhouse.LLM.generate,
    stillhouse.LLM.generate_outputs,
    stillhouse.LLM.iter_outputs,
]


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__qualname__)
def test_examples_of_a_docstring(member: Any) -> None:
    (found,) = doctest.DocTestFinder(recurse=False).find(
        member, member.__qualname__, globs={"stillhouse": stillhouse}
    )
    assert found.examples
    problems: list[str] = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(found, out=problems.append)
    assert failed == 0, "".join(problems)
