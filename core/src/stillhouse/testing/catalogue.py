"""`all_rules`: every rule of the kit."""

from __future__ import annotations

from stillhouse.testing.http_suite import HTTPConformance
from stillhouse.testing.rule import Rule, rule_of

__all__ = ["all_rules"]


def all_rules() -> list[Rule]:
    """Return every rule of the kit, by id."""
    members = [member for base in HTTPConformance.__mro__ for member in vars(base).values()]
    rules = {rule.id: rule for rule in map(rule_of, members) if rule is not None}
    return [rules[id] for id in sorted(rules)]
