"""`Usage`: what the calls for one row used, per member and in all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stillhouse import GenerateOutput, GenerationError
from stillhouse.outputs import count_of
from stillhouse_moa.members import Member

__all__ = ["Usage"]

_EVERY_CALL = ("input_tokens", "output_tokens")


class Usage:
    """Counts the tokens of the calls for one row.

    A sum has what the members reported. It is left out of the total, as unknown, if it is one of the input
    or the output and a call that was answered did not report it.

    Args:
        order: the members in the order in which they are listed, whatever call ends first.
    """

    def __init__(self, order: Iterable[Member]) -> None:
        # Those that get no call stay empty, and are left out.
        self._members: dict[str, dict[str, Any]] = {member.name: {} for member in order}
        self._unknown: set[str] = set()

    def add(self, member: Member, result: GenerateOutput | GenerationError) -> None:
        """Count a call: its output, or its error."""
        entry = self._members[member.name]
        if not entry:
            entry |= {"member": member.name, "llm": member.backend, "model_name": member.llm.model_name}
            entry["calls"] = 0
        if isinstance(result, GenerationError):
            entry["calls"] += bool(result.attempts)
            for output in result.outputs:
                _count(entry, output)
            return
        entry["calls"] += 1
        counted = _count(entry, result)
        self._unknown.update(name for name in _EVERY_CALL if name not in counted)

    @property
    def members(self) -> list[dict[str, Any]]:
        """One entry per member: its name, backend and model, how many calls it got, and their tokens.

        The proposers stand in their order, and the aggregator is the last.
        """
        return [entry for entry in self._members.values() if entry]

    @property
    def statistics(self) -> dict[str, list[Any]]:
        """The sums over all calls."""
        total: dict[str, Any] = {}
        for entry in self._members.values():
            for name, count in entry.items():
                if name.endswith("_tokens") and name not in self._unknown:
                    total[name] = total.get(name, 0) + count
        return {name: [count] for name, count in total.items()}

    def added_to(self, output: GenerateOutput) -> GenerateOutput:
        """Return an output whose statistics are those of all calls, with `member_usage` beside them.

        What was used stands with the first generation, since the calls serve all of them.
        """
        own = {name: counts for name, counts in output["statistics"].items() if not name.endswith("_tokens")}
        others = [None] * (len(output["generations"]) - 1)
        whole: Any = {
            **output,
            "statistics": {**own, **self.statistics},
            "member_usage": [self.members, *others],
        }
        return whole  # type: ignore[no-any-return]


def _count(entry: dict[str, Any], output: GenerateOutput | None) -> set[str]:
    """Add the tokens of an output to those of a member, and return which of them it reports."""
    counted: set[str] = set()
    for name, counts in (output or {"statistics": {}})["statistics"].items():
        known = [count for count in map(count_of, counts) if count is not None]
        if name.endswith("_tokens") and known:
            entry[name] = entry.get(name, 0) + sum(known)
            counted.add(name)
    return counted
