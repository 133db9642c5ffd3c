"""`Rule`: one promise of the contract, its reason, its remedy, and the test that checks it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, overload

import pytest

from stillhouse.errors import StillhouseError
from stillhouse.testing.frames import described, lines_of, mistake_of
from stillhouse.typing import Capability

__all__ = [
    "FAMILIES", "Broken", "ConformanceWarning", "Rule", "expect", "rule", "rule_of", "said", "unseen", "warn",
]  # fmt: skip

Test = Callable[[Any], None]

FIRST_VERSION = "0.1"

FAMILIES = {
    "C": "C00",
    "H": "C00",
    "G": "G00",
    "I": "I00",
    "O": "O00",
    "X": "X00",
}
"""What the ids of rules begin with, in the order of the pages, and the rule without which no other of them
can be judged."""

_NAME = re.compile(r"test_([a-z]\d\d)_\w+")


class ConformanceWarning(UserWarning):
    """Something works that the backend does not declare, or costs more than it should."""


class Broken(Exception):  # noqa: N818  -- a rule is broken; the kit is not in error
    """A rule is broken; the text says what was seen."""


@dataclass(frozen=True)
class Rule:
    """One rule of the contract.

    Attributes:
        id: it never changes: `C01`, or `H01` for a rule on backends that ask a server; `G01` on plugins of
            hooks, `I01` on readers, `O01` on writers, `X01` on executors.
        promise: what is promised, in a sentence.
        why: what goes wrong for users if it is not kept.
        fix: what to do when it is broken.
        capability: the capability without which the rule does not apply, or `None`.
        test: the name of its test.
        since: the version of Stillhouse that has it first.
    """

    id: str
    promise: str
    why: str
    fix: str
    capability: Capability | None
    test: str
    since: str = FIRST_VERSION

    def broken(self, seen: str) -> str:
        """Return the message to an author who broke the rule."""
        return f"{self.id} is broken: {self.promise}\n  seen  {seen}\n  why   {self.why}\n  fix   {self.fix}"


@overload
def rule(function: Test) -> Test: ...
@overload
def rule(
    *,
    capability: Capability | None = None,
    concurrent: bool = False,
    after: str | tuple[str, ...] = (),
    since: str = FIRST_VERSION,
) -> Callable[[Test], Test]: ...
def rule(
    function: Test | None = None,
    *,
    capability: Capability | None = None,
    concurrent: bool = False,
    after: str | tuple[str, ...] = (),
    since: str = FIRST_VERSION,
) -> Any:
    """Make a method `test_c01_…` the test of a rule.

    Its docstring is the rule: a first sentence, then a paragraph after `Why:` and one after `Fix:`.

    Args:
        function: the method.
        capability: skip it if the backend does not declare this capability.
        concurrent: skip it if the backend is not an `AsyncLLM`.
        after: skip it if the rule of this id, or one of these, was found broken: one mistake breaks one
            rule. All rules come after the first of their family.
        since: the version of Stillhouse that has it first.
    """
    if function is None:
        return functools.partial(rule, capability=capability, concurrent=concurrent, after=after, since=since)
    made = _parse(function, capability, since)
    first = FAMILIES[made.id[0]]
    earlier = (first, after) if isinstance(after, str) else (first, *after)

    @functools.wraps(function)
    def test(self: Any) -> None:
        for id in earlier:
            if id in self._broken and id != made.id:
                pytest.skip(f"{id} is broken")
        try:
            if capability is not None and capability not in self.capabilities:
                pytest.skip(f"{capability} is not declared")
            if concurrent and not self.is_async:
                pytest.skip("for an AsyncLLM only")
            function(self)
            return
        except Broken as error:
            seen = str(error) + lines_of(error.__cause__, self._packages)
        except Warning:
            raise
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            seen = described(error, self._packages)
            id = self._mistakes.setdefault(mistake_of(error, self._packages), made.id)
            if id != made.id:
                pytest.skip(f"{id} is broken")
        self._broken.add(made.id)
        pytest.fail(made.broken(seen), pytrace=False)

    test.conformance_rule = made  # type: ignore[attr-defined]
    return test


def rule_of(function: Any) -> Rule | None:
    """Return the rule that a test checks; `None` if it checks none."""
    found = getattr(function, "conformance_rule", None)
    return found if isinstance(found, Rule) else None


def expect(condition: Any, seen: str) -> None:
    """Break the rule unless the condition holds."""
    if not condition:
        raise Broken(seen)


def unseen(reason: str) -> NoReturn:
    """Skip the rule: nothing happened that could have broken it."""
    pytest.skip(reason)


def said(error: BaseException) -> str:
    """Return the message of an error without its remedy, which may be that of another mistake."""
    return error.message if isinstance(error, StillhouseError) else str(error)


def warn(message: str) -> None:
    """Warn the author of something that breaks no rule."""
    warnings.warn(message, ConformanceWarning, stacklevel=2)


def _parse(function: Test, capability: Capability | None, since: str) -> Rule:
    name = _NAME.fullmatch(function.__name__)
    assert name, f"{function.__name__} names no rule"
    parts = [" ".join(part.split()) for part in re.split(r"\n\s*\n", inspect.getdoc(function) or "")]
    assert len(parts) == 3, f"{function.__name__} needs a promise, Why: and Fix:"
    promise, why, fix = parts
    assert why.startswith("Why: ")
    assert fix.startswith("Fix: ")
    return Rule(name[1].upper(), promise, why[5:], fix[5:], capability, function.__name__, since)
