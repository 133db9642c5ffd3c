"""The command that a run was started with, and how another command differs from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from stillhouse._settings.digest import shaping_fields
from stillhouse._settings.serialization import described, without_secrets
from stillhouse.errors import ConfigurationError
from stillhouse.llm import LLM
from stillhouse.protocols import RowReader

__all__ = ["check_unchanged", "command_of", "input_difference"]

_SHOWN = 60


def command_of(
    llm: LLM, arguments: dict[str, Any], num_generations: int, formatting: dict[str, Any], input_digest: str
) -> dict[str, Any]:
    """Return everything on which the output of a run depends, as JSON types without secrets.

    A setting that only changes the speed, such as `max_concurrency`, is not part of it.
    """
    shaping = {"llm", *shaping_fields(llm)}
    return {
        "llm": {name: value for name, value in described(llm).items() if name in shaping},
        "model_name": llm.model_name,
        "parameters": without_secrets({**llm.get_generation_kwargs(), **arguments}),
        "num_generations": num_generations,
        **formatting,
        "input": input_digest,
    }


def check_unchanged(before: dict[str, Any], now: dict[str, Any], input_changes: Iterable[str]) -> None:
    """Refuse to resume a run with another command.

    Args:
        before: the command that it was started with, as `command_of` returns it.
        now: the present command.
        input_changes: how the input differs; only iterated over if it does.

    Raises:
        ConfigurationError: the commands differ; the message says how.
    """
    changes = list(_changes(before, now))
    if before.get("input") != now.get("input"):
        changes += input_changes
    if not changes:
        return
    raise ConfigurationError(
        "the run of this output was started with another command:\n" + "\n".join(f"  {c}" for c in changes),
        hint="give the earlier command to go on, another output, or --restart to begin anew",
    )


def _changes(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        # A value of None is not sent: it is the same as a parameter that is not given.
        for key in [*before, *(key for key in now if key not in before)]:
            if before.get(key) != now.get(key) and not (key == "input" and not name):
                yield from _changes(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    else:
        yield "{}: it was {}, and is {} now".format(name, *_short(before, now))


def _short(*values: Any) -> list[str]:
    """Return values as JSON, of long ones the part where they begin to differ."""
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    start = 0
    if max(map(len, texts)) > _SHOWN:
        pairs = enumerate(zip(*texts, strict=False))
        same = next((place for place, letters in pairs if len({*letters}) > 1), 0)
        start = max(0, same - _SHOWN // 2)
    shown = [f"{'…' if start else ''}{text[start : start + _SHOWN]}" for text in texts]
    return [part + "…" * (start + _SHOWN < len(text)) for part, text in zip(shown, texts, strict=True)]


def input_difference(reader: RowReader, digests: Iterator[tuple[int, int]]) -> Iterator[str]:
    """Describe how the rows of the input differ from those that the run has."""
    changed, first, known = 0, 0, 0
    rows = iter(reader)
    for index, digest in digests:
        row = next((item for item in rows if item.index == index), None)
        if row is None:
            yield "input: it has fewer rows than were generated"
            return
        known += 1
        if row.digest != digest:
            changed += 1
            first = first or row.line
    if changed:
        yield f"input: {changed:,} of {known:,} rows are others; the first is on line {first}"
    else:
        yield f"input: it changed, but not in the {known:,} rows that were generated"
