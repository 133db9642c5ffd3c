"""Sections of a report: how the answers ended, why rows failed, what each session did, and with what."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from stillhouse._wording import number_of
from stillhouse.jobs.reporting.commands import retry_text
from stillhouse.jobs.reporting.facts import RunFacts, outcome_of
from stillhouse.jobs.reporting.units import about, count, duration, iso_moment, moment, rows_rate
from stillhouse.jobs.runs.provenance import Provenance
from stillhouse.jobs.runs.reasons import Failure, common_endings
from stillhouse.jobs.runs.summary import Session

__all__ = [
    "Ending", "Kind", "answers_of", "endings_of", "environment_of", "failures_of", "progress_of",
    "sessions_of",
    "settings_of", "warnings_of",
]  # fmt: skip

MAX_MESSAGES = 30
MAX_SESSIONS = 50
MAX_ENDINGS = 10
MAX_SETTINGS = 60
MAX_TEXT_CHARACTERS = 600

_REMARKS = {
    "cut": "ended at max_new_tokens: raise it", "empty": "without a text", "refused": "by the model",
    "filtered": "by the provider",
}  # fmt: skip


class Kind(NamedTuple):
    """Failed rows of one kind.

    Attributes:
        name: the kind.
        rows: how many they are.
        retry: the option that generates them again; empty where that would be in vain.
        command: the whole command that does so; empty where it is not known.
        is_queued: whether that command needs no option, since an earlier retry queued them.
        messages: how many rows failed for a reason, which are the first of them, the reason, and when.
    """

    name: str
    rows: int
    retry: str
    command: str
    is_queued: bool
    messages: list[tuple[str, str, str, list[tuple[str, str]]]]


class Ending(NamedTuple):
    """Generations that ended for one reason: the reason, how many, and their share in percent."""

    name: str
    number: int
    percent: float


def failures_of(facts: RunFacts) -> list[Kind]:
    """Return why rows failed, by kind, each with its commonest messages."""
    summary, failures = facts.summary, facts.failures
    kinds = sorted(failures.kinds.items(), key=lambda item: (-item[1], item[0]))
    found = {}
    for kind, rows in kinds:
        retry = summary.retry(kind) or ""
        is_queued = summary.is_queued(kind)
        command = retry_text(facts.first, retry) if retry or is_queued else ""
        found[kind] = Kind(kind, rows, retry, command, is_queued, [])
    for failure in failures.most_common(MAX_MESSAGES):
        found[failure.kind].messages.append(
            (f"{failure.rows:,}", _rows(failure), failure.message, _seen(failure))
        )
    return list(found.values())


def _rows(failure: Failure) -> str:
    """Return which rows failed for a reason: the first of them, and how many more there are."""
    named = ", ".join(f"{row:,}" for row in failure.examples)
    more = failure.rows - len(failure.examples)
    return f"{named} and {more:,} more" if more else named


def _seen(failure: Failure) -> list[tuple[str, str]]:
    """Return when the first and the last row failed for a reason: for programs, and for people."""
    if failure.seen is None:
        return []
    moments = [failure.seen[0]] if moment(failure.seen[0]) == moment(failure.seen[1]) else failure.seen
    return [(iso_moment(seconds), moment(seconds)) for seconds in moments]


def answers_of(facts: RunFacts) -> list[tuple[str, str, str]]:
    """Return how the answers ended: a label, how many, and a remark. What nobody says is unknown."""
    if not facts.endings.total:
        return []
    numbers = facts.endings.as_json()
    total = numbers.pop("total") or 1
    return [
        (name, f"{number:,} ({number / total:.1%})", _REMARKS[name]) if number else (name, count(number), "")
        for name, number in numbers.items()
    ]


def endings_of(facts: RunFacts) -> list[Ending]:
    """Return the finish reasons, the most frequent first; none if the backend does not give any."""
    endings = facts.endings
    if not endings.are_told:
        return []
    total = endings.total or 1
    return [
        Ending(name, number, 100 * number / total)
        for name, number in common_endings(endings.counts, MAX_ENDINGS)
    ]


def warnings_of(facts: RunFacts) -> list[str]:
    """Return what a person must not overlook."""
    found, answers = [], facts.endings.as_json()
    total, cut, empty = answers["total"], answers["cut"], answers["empty"]
    if cut and total:
        most = facts.parameters.get("max_new_tokens")
        at = f"max_new_tokens={most}" if most is not None else "the limit on their tokens"
        found.append(f"{_answers(cut)} ({cut / total:.0%}) {_were(cut)} cut at {at}.")
    if empty and total:
        found.append(f"{_answers(empty)} ({empty / total:.0%}) {_were(empty)} empty.")
    for name, what in (("refused", "refused by the model"), ("filtered", "filtered by the provider")):
        number = answers[name]
        if number and total:
            found.append(f"{_answers(number)} ({number / total:.0%}) {_were(number)} {what}.")
    if facts.repeated_inputs:
        rows = number_of(facts.repeated_inputs, "row")
        has = "has" if facts.repeated_inputs == 1 else "have"
        if not (facts.summary.command or {}).get("dedupe"):
            found.append(f"{rows} {has} the same content as an earlier row; --dedupe answers them together.")
    return found


def _answers(number: int) -> str:
    return f"{number:,} {'answer' if number == 1 else 'answers'}"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def progress_of(facts: RunFacts) -> tuple[float, str] | None:
    """Return how far a run is that is not complete: the share in percent, and words; `None` if not known."""
    total, rows = facts.pace.total, facts.summary.rows
    if total is None or not total or facts.state == "complete":
        return None
    share = min(1.0, rows / total)
    whole = about(total) if facts.pace.total_is_estimated else f"{total:,}"
    parts = [f"{rows:,} of {whole} rows ({int(100 * share)}%)"]
    if facts.pace.rows_per_second:
        parts.append(rows_rate(facts.pace.rows_per_second))
    if facts.pace.seconds_left is not None:
        parts.append(f"about {duration(facts.pace.seconds_left)} left")
    return 100 * share, ", ".join(parts)


def sessions_of(facts: RunFacts) -> list[tuple[str, ...]]:
    """Return each session as a row of the table, with the rows whose last result is its; the latest ones."""
    sessions = facts.summary.sessions
    rows = [
        _session(facts, place, session, facts.working and session is sessions[-1])
        for place, session in enumerate(sessions)
    ]
    return rows[-MAX_SESSIONS:]


def _session(facts: RunFacts, place: int, session: Session, working: bool) -> tuple[str, ...]:
    took = "" if session.ended is None else duration(session.ended - session.started)
    found = facts.provenances.get(place + 1)
    return (
        str(place + 1),
        moment(session.started),
        took,
        f"{facts.tally.done[place]:,}",
        f"{facts.tally.failed[place]:,}",
        _retried(facts, place, found),
        "working" if working else outcome_of(session),
        f"{session.process} on {session.host}",
        session.version,
    )


def _retried(facts: RunFacts, place: int, found: Provenance | None) -> str:
    """Return how many failed rows a session generated again, and what became of them where that is known."""
    if found is None or not found.retried:
        return ""
    following = facts.provenances.get(place + 2)
    rows = facts.summary.rows + facts.summary.queued if following is None else following.known
    if rows != found.known or following is not None:  # it also had new rows, or later ones changed the counts
        return f"{found.retried:,}"
    return f"{found.retried:,}: {facts.tally.done[place]:,} done now"


def settings_of(facts: RunFacts) -> list[tuple[str, str]]:
    """Return the settings of the run as names and values, without defaults."""
    command = dict(facts.summary.command or {})
    llm = command.pop("llm", None) or {}
    parameters = command.pop("parameters", None) or {}
    command.pop("input", None)
    found = {"model": command.pop("model_name", None), "LLM": llm.pop("llm", None)}
    found |= {name.replace("_", " "): value for name, value in command.items() if value is not False}
    found |= {f"parameter {name}": value for name, value in parameters.items()}
    found |= {f"LLM setting {name}": value for name, value in llm.items() if name != "model"}
    texts = [
        (name, _shortened(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
        for name, value in found.items()
        if value is not None and value != {} and value != []
    ]
    if len(texts) > MAX_SETTINGS:
        texts = [*texts[:MAX_SETTINGS], ("more settings", f"{len(texts) - MAX_SETTINGS:,} are not shown")]
    return texts


def environment_of(found: Provenance | None) -> list[tuple[str, str]]:
    """Return what a session ran with, as names and values."""
    if found is None:
        return []
    facts: list[tuple[str, Any]] = [
        ("Python", found.python), ("system", found.system), ("processors", found.cpus),
        *found.packages.items(),
    ]  # fmt: skip
    return [(name, str(value)) for name, value in facts if value]


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARACTERS else f"{text[:MAX_TEXT_CHARACTERS]} …"
