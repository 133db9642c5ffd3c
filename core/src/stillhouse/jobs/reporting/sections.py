"""Sections of a report: how the answers ended, why rows failed, and what each session did."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from typing import NamedTuple

from stillhouse.jobs.reporting.units import clock, count, duration
from stillhouse.jobs.runs.reasons import Failure, Failures
from stillhouse.jobs.runs.summary import Session, Summary
from stillhouse.jobs.store.database import DONE

__all__ = ["answers_of", "failures_of", "outcome_of", "sessions_of"]

MAX_MESSAGES = 30


class _Kind(NamedTuple):
    """Failed rows of one kind: how many, the option that generates them again, and their messages."""

    name: str
    rows: int
    retry: str
    messages: list[tuple[str, str]]


def failures_of(summary: Summary) -> list[_Kind]:
    """Return why rows failed, by kind, each with its commonest messages."""
    failures = summary.reasons.failures if summary.reasons is not None else Failures()
    kinds = sorted(failures.kinds.items(), key=lambda item: (-item[1], item[0]))
    found = {kind: _Kind(kind, rows, summary.retry(kind) or "", []) for kind, rows in kinds}
    for failure in failures.most_common(MAX_MESSAGES):
        found[failure.kind].messages.append((_rows(failure), failure.message))
    return list(found.values())


def _rows(failure: Failure) -> str:
    """Return how many rows failed for a reason, and which are the first."""
    more = ", …" if failure.rows > len(failure.examples) else ""
    named = f"row{'s' if failure.rows > 1 else ''} {', '.join(f'{row:,}' for row in failure.examples)}{more}"
    return named if failure.rows == 1 else f"{failure.rows:,}: {named}"


def answers_of(summary: Summary) -> list[tuple[str, str, str]]:
    """Return how the answers ended: a label, how many, and a remark. What nobody says is unknown."""
    if summary.reasons is None or not summary.reasons.endings.total:
        return []
    facts = summary.reasons.endings.as_json()
    total = facts.pop("total") or 1
    remarks = {
        "cut": "ended at max_new_tokens: raise it", "empty": "without a text", "refused": "by the model",
        "filtered": "by the provider",
    }  # fmt: skip
    return [
        (name, f"{number:,} ({number / total:.1%})", remarks[name]) if number else (name, count(number), "")
        for name, number in facts.items()
    ]


def outcome_of(session: Session | None) -> str:
    return "not started" if session is None else session.outcome or "killed"


def sessions_of(connection: sqlite3.Connection, summary: Summary, working: bool) -> list[tuple[str, ...]]:
    """Return each session as a row of the table, with the rows whose last result is its."""
    starts = [session.started for session in summary.sessions]
    done, failed = [0] * len(starts), [0] * len(starts)
    for state, finished in connection.execute("SELECT state, finished FROM rows") if starts else ():
        session = max(0, bisect_right(starts, finished) - 1)
        if state == DONE:
            done[session] += 1
        else:
            failed[session] += 1
    return [
        _session(session, working and session is summary.sessions[-1], done[place], failed[place])
        for place, session in enumerate(summary.sessions)
    ]


def _session(session: Session, working: bool, done: int, failed: int) -> tuple[str, ...]:
    ended = "" if session.ended is None else clock(session.ended)
    took = "" if session.ended is None else duration(session.ended - session.started)
    outcome = "working" if working else outcome_of(session)
    return (
        clock(session.started),
        ended,
        took,
        f"{done:,}",
        f"{failed:,}",
        outcome,
        f"{session.process} on {session.host}",
        session.version,
    )
