"""`PluginInfo`: the facts about one plugin, and its `Status`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from stillhouse.registry.candidates import Candidate
from stillhouse.registry.problems import Problem, report

if TYPE_CHECKING:
    from stillhouse.registry.loading import Loaded

__all__ = ["PluginInfo", "Status", "distinct_problems", "errors", "unloaded", "with_loaded"]

Status = Literal["built-in", "found", "disabled", "settled", "incompatible", "conflict", "loaded", "failed"]


@dataclass(frozen=True)
class PluginInfo:
    """The facts about one plugin that are known now.

    Attributes:
        name: its name.
        status: its state. `built-in` and `found` plugins are not imported yet.
        candidate: its metadata.
        troubles: its problems that are known, before or after loading it.
        settled_by: for a `settled` plugin, the switch, and the distribution that it prefers.
    """

    name: str
    status: Status
    candidate: Candidate
    troubles: tuple[Problem, ...] = ()
    settled_by: str = ""

    @property
    def kind(self) -> str:
        return self.candidate.kind

    @property
    def package(self) -> str:
        """The distribution and its version."""
        return self.candidate.package

    @property
    def summary(self) -> str:
        """One line about it: its distribution's, or its own where the distribution has several plugins.

        Its own is the first sentence of its docstring, read from the source without importing it.
        """
        if self.candidate.is_one_of_several:
            from stillhouse.registry.summaries import own_summary

            return own_summary(self.candidate.value) or self.candidate.summary
        return self.candidate.summary

    @property
    def reports(self) -> list[str]:
        """The report of each problem."""
        return [report(self.candidate, problem) for problem in self.troubles]


def unloaded(candidate: Candidate, problems: Iterable[Problem] = (), settled_by: str = "") -> PluginInfo:
    """Describe a plugin that has not been loaded; its status follows from its problems."""
    healthy: Status = "built-in" if candidate.distribution == "stillhouse" else "found"
    if settled_by:
        healthy = "settled"
    problems = tuple(problems)
    return PluginInfo(candidate.name, _status(problems, healthy), candidate, problems, settled_by)


def distinct_problems(infos: Iterable[PluginInfo]) -> Iterator[tuple[PluginInfo, Problem]]:
    """Yield the problems of several plugins: one that several share, such as a conflict, once."""
    seen: set[tuple[str, str, Problem]] = set()
    for info in infos:
        for problem in info.troubles:
            key = (info.kind, info.name, problem)
            if problem.code != "E102" or key not in seen:
                seen.add(key)
                yield info, problem


def with_loaded(info: PluginInfo, loaded: Loaded) -> PluginInfo:
    """Add what loading a plugin showed."""
    problems = (*info.troubles, *(item for item in (loaded.error, loaded.warning) if item))
    return replace(info, status=_status(problems, "loaded"), troubles=problems)


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """Return the problems that make a plugin unusable."""
    return [problem for problem in problems if problem.severity == "error"]


def _status(problems: Iterable[Problem], healthy: Status) -> Status:
    codes = {problem.code for problem in errors(problems)}
    if codes & {"E104", "E105"}:
        return "incompatible"
    if codes & {"E102", "E103"}:
        return "conflict"
    return "failed" if codes else healthy
