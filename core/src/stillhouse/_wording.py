"""Counts in messages: a number with what it counts, in the singular or the plural."""

from __future__ import annotations

__all__ = ["number_of"]


def number_of(number: int, noun: str, verbs: str = "", plural: str = "") -> str:
    """Return a count with its noun, such as `1 row` or `2,000 rows`.

    Args:
        number: how many.
        noun: in the singular.
        verbs: what follows in the singular and in the plural, such as `is/are`.
        plural: the plural of the noun, where it is not regular.
    """
    one, _, many = verbs.partition("/")
    verb = one if number == 1 else many
    if number != 1:
        noun = plural or noun + ("es" if noun.endswith("ch") else "s")
    return f"{number:,} {noun} {verb}".rstrip()
