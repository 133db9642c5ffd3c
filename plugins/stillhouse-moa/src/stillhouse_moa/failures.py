"""`Missing`: a proposal that did not come, and the error of a row that has too few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stillhouse import GenerateOutput, GenerationError
from stillhouse.errors import ErrorKind
from stillhouse_moa.members import Member

__all__ = ["Missing", "failure_of_all"]

MAX_CHARS = 300
"""How much of each member's message the error of a row quotes."""

_TRANSIENT = ("rate_limit", "timeout", "connection", "server")

_KINDS: dict[str, ErrorKind] = {
    "content_filter": "content_filter",
    "length": "truncated",
    "refusal": "content_filter",
}


@dataclass(frozen=True)
class Missing:
    """A proposal that did not come.

    Attributes:
        member: the proposer.
        number: the round, from 1.
        error: why.
    """

    member: Member
    number: int
    error: GenerationError

    @classmethod
    def of(cls, member: Member, number: int, output: GenerateOutput) -> Missing | None:
        """Return what is missing in an output; `None` if its text can be used.

        A text beside the call of a tool cannot: nobody runs the tool, and what the text says of its result
        is invented.
        """
        (text, *_), reasons = output["generations"] or [None], output.get("finish_reasons") or []
        reason = reasons[0] if reasons else None
        if reason == "tool_calls" or any(output.get("tool_calls") or ()):
            why = "it called a tool, and tools are not run for proposers"
            return cls(member, number, GenerationError(why))
        if text is None or not text.strip():
            why = f"it answered without a text, with the finish reason {reason or 'unknown'}"
            return cls(member, number, GenerationError(why, kind=_KINDS.get(reason or "", "unknown")))
        return None

    @property
    def note(self) -> dict[str, Any]:
        """What the output of the row says of it."""
        return {
            "member": self.member.name,
            "model_name": self.member.llm.model_name,
            "round": self.number,
            "kind": self.error.kind,
            "message": _quoted(self.error.message),
        }


def failure_of_all(
    missing: Sequence[Missing], needed: int, asked: int, paid: Sequence[GenerateOutput]
) -> GenerationError:
    """Return the error of a row for which too few proposals came.

    It stops the run if too few proposers are left that any further request might reach.

    Args:
        missing: those that did not come.
        needed: how many were needed.
        asked: how many proposers there are.
        paid: the partial output of the row.
    """
    errors = [item.error for item in missing]
    gone = [error for error in errors if error.stops_run]
    stops = asked - len(gone) < needed
    # A row that may succeed later has a kind that is retried; the one of a refused key would stop the run.
    deciding = gone if stops else [error for error in errors if not error.stops_run]
    chosen = next((error for error in deciding if error.kind in _TRANSIENT), deciding[0])
    told = "; ".join(f"{item.member}: {_quoted(item.error.message)}" for item in missing)
    came = asked - len(missing)
    return GenerationError(
        f"{came or 'none'} of {asked} proposers answered, but {needed} must: {told}",
        kind=chosen.kind,
        attempts=max(error.attempts for error in errors) or int(came > 0),
        outputs=paid,
        request_id=chosen.request_id,
        stops_run=stops,
        hint=chosen.hint,
    )


def _quoted(message: str) -> str:
    return message if len(message) <= MAX_CHARS else f"{message[:MAX_CHARS]}…"
