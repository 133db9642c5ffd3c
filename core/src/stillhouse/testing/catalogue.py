"""`all_rules`: every rule of the kit."""

from __future__ import annotations

from stillhouse.testing.hook_suites import (
    ExecutorConformance,
    HookConformance,
    ReaderConformance,
    WriterConformance,
)
from stillhouse.testing.http_suite import HTTPConformance
from stillhouse.testing.rule import FAMILIES, Rule, rule_of

__all__ = ["all_rules"]


def all_rules() -> list[Rule]:
    """Return every rule of the kit: of each family in turn, by id."""
    bases = [
        base
        for suite in (
            HTTPConformance,
            HookConformance,
            ReaderConformance,
            WriterConformance,
            ExecutorConformance,
        )
        for base in suite.__mro__
    ]
    members = [member for base in bases for member in vars(base).values()]
    rules = {rule.id: rule for rule in map(rule_of, members) if rule is not None}
    return [rules[id] for family in FAMILIES for id in sorted(rules) if id.startswith(family)]
