"""The command that a run was started with, and how another command differs from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from stillhouse._settings.digest import shaping_fields
from stillhouse._settings.serialization import described, without_secrets
from stillhouse._wording import number_of
from stillhouse.errors import ConfigurationError
from stillhouse.llm import LLM
from stillhouse.protocols import RowReader

__all__ = ["InputChanges", "check_unchanged", "command_of", "differences"]

_SHOWN = 60


def command_of(
    llm: LLM, arguments: dict[str, Any], num_generations: int, formatting: dict[str, Any], input_digest: str
) -> dict[str, Any]:
    """Return everything that the output of a run depends on, as JSON types without secrets.

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


def check_unchanged(
    before: dict[str, Any], now: dict[str, Any], input_changes: InputChanges, *, extend: bool = False
) -> None:
    """Refuse to resume a run with another command.

    Args:
        before: the command that it was started with, as `command_of` returns it.
        now: the present command.
        input_changes: how the input differs; only looked at if it does.
        extend: whether the input may have other rows after those that were generated.

    Raises:
        ConfigurationError: the commands differ; the message says how.
    """
    changes = [f"{name}: it was {was}, and is {is_now} now" for name, was, is_now in differences(before, now)]
    hint = "repeat the earlier command to resume it, choose another output, or use --restart to start over"
    if before.get("input") != now.get("input"):
        if not (changes or extend or input_changes.are_in_rows):
            hint = (
                "if rows were added at its end, use --extend, which keeps finished rows; otherwise restore "
                "the input to resume the run, choose another output, or use --restart to start over"
            )
        if not extend or input_changes.are_in_rows:
            changes.append(input_changes.told)
    if not changes:
        return
    raise ConfigurationError(
        "this output belongs to a run with other settings:\n" + "\n".join(f"  {c}" for c in changes),
        hint=hint,
    )


def differences(one: Any, other: Any, name: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield each difference between two commands, except their inputs: the name and both values, cut."""
    if isinstance(one, dict) and isinstance(other, dict):
        # A value of None is not sent: it is the same as a parameter that is not given.
        for key in [*one, *(key for key in other if key not in one)]:
            if one.get(key) != other.get(key) and not (key == "input" and not name):
                yield from differences(one.get(key), other.get(key), f"{name}.{key}" if name else key)
    else:
        yield name, *_short(one, other)


def _short(one: Any, other: Any) -> tuple[str, str]:
    """Return two values as JSON; for long ones, the part where they start to differ."""
    texts = [json.dumps(value, ensure_ascii=False) for value in (one, other)]
    start = 0
    if max(map(len, texts)) > _SHOWN:
        pairs = enumerate(zip(*texts, strict=False))
        same = next((place for place, letters in pairs if len({*letters}) > 1), 0)
        start = max(0, same - _SHOWN // 2)
    shown = [f"{'…' if start else ''}{text[start : start + _SHOWN]}" for text in texts]
    first, second = (
        part + "…" * (start + _SHOWN < len(text)) for part, text in zip(shown, texts, strict=True)
    )
    return first, second


class InputChanges:
    """How the rows of the input differ from those of the run; computed when it is needed.

    Args:
        reader: reads the whole input.
        digests: the index and the digest of every row that the run has, in their order.
    """

    def __init__(self, reader: RowReader, digests: Iterable[tuple[int, int]]) -> None:
        self._reader = reader
        self._digests = digests

    @property
    def are_in_rows(self) -> bool:
        """Whether a row of the run was changed or removed; if not, rows may have been added."""
        return self._found[0]

    @property
    def told(self) -> str:
        """The changes, as text."""
        return self._found[1]

    @cached_property
    def _found(self) -> tuple[bool, str]:
        try:
            return self._compared()
        finally:  # the state may be closed before the garbage is collected
            close = getattr(self._digests, "close", None)
            if close is not None:
                close()

    def _compared(self) -> tuple[bool, str]:
        changed, first, known = 0, "", 0
        rows = iter(self._reader)
        for index, digest in self._digests:
            row = next((item for item in rows if item.index == index), None)
            if row is None:
                return True, "input: it has fewer rows than were generated"
            known += 1
            if row.digest != digest:
                changed += 1
                first = first or row.place
        if changed:
            first = f"on {first}" if first.startswith("line ") else first
            verb = "differs" if changed == 1 else "differ"
            return True, f"input: {changed:,} of {number_of(known, 'row')} {verb}; the first is {first}"
        done = number_of(known, "row", "that was/that were")
        return False, f"input: it changed, but not in the {done} generated"
