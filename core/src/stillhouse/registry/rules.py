"""Rules that need no import of the plugin: names, groups, version ranges, duplicates."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stillhouse._wording import install_command
from stillhouse.registry.candidates import HOOKS_GROUP, LLMS_GROUP, Candidate, normalize
from stillhouse.registry.known import BUILT_IN
from stillhouse.registry.policy import PREFER_VARIABLE, Policy
from stillhouse.registry.problems import Problem

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["NAME_PATTERN", "conflicts", "static_problems"]

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]*")

_ON_CORE = re.compile(r"stillhouse(?![\w.-])", re.IGNORECASE)
_FOR_AN_EXTRA = re.compile(r"""^[^;]*;\s*extra\s*==\s*(['"])[^'"]+\1\s*$""")
_RELEASE = re.compile(r"\d+(\.\d+)*")


def static_problems(candidate: Candidate, core_version: str) -> list[Problem]:
    """Return the problems of one candidate by itself, as far as its metadata shows them."""
    problems = []
    if not NAME_PATTERN.fullmatch(candidate.name):
        problems.append(
            Problem(
                "E101",
                f"{candidate.name!r} is not small letters, digits and hyphens, the first no hyphen",
                f"ask the authors of {candidate.distribution or 'the package'} for another name",
            )
        )
    if candidate.group not in (LLMS_GROUP, HOOKS_GROUP):
        known = HOOKS_GROUP if candidate.kind == "hook" else LLMS_GROUP
        problems.append(
            Problem(
                "E104",
                f"the group {candidate.group} is not known to stillhouse {core_version}, which reads {known}",
                install_command("stillhouse", options="--upgrade"),
            )
        )
    unmet = _unmet_range(candidate.requires, core_version)
    if unmet is not None:
        problems.append(
            Problem(
                "E105",
                f"it requires {unmet.name}{unmet.specifier}, and stillhouse {core_version} is installed",
                _remedy(unmet, core_version, candidate.distribution),
            )
        )
    if candidate.kind == "llm" and candidate.name in BUILT_IN:
        problems.append(
            Problem(
                "E103",
                f"{candidate.name} is built into stillhouse, and the built-in one is used",
                f"pip uninstall {candidate.distribution}, or ask its authors for another name",
            )
        )
    if candidate.shadowed:
        problems.append(
            Problem(
                "W106",
                f"the one in {candidate.location} is used; there is also {' and '.join(candidate.shadowed)}",
                f"delete it if it is a leftover, take its folder off PYTHONPATH, "
                f"or pip uninstall {candidate.distribution} and install it again",
            )
        )
    return problems


def conflicts(claimants: Sequence[Candidate], policy: Policy) -> dict[Candidate, Problem | str]:
    """Return what keeps each of several candidates that claim one name from being used.

    It is E102, or, where the policy prefers another of them, a sentence that says so: then the user has
    settled the conflict, and nothing is wrong any more.
    """
    name = claimants[0].name
    preferred = policy.prefer.get(name, "")
    winners = [item for item in claimants if preferred and normalize(item.distribution) == preferred]
    losers = [item for item in claimants if item not in winners[:1]]
    if len(claimants) < 2 or not losers:
        return {}
    packages = sorted({item.package for item in claimants})
    names = sorted({normalize(item.distribution) for item in claimants})
    if len(names) > 1:
        choices = " or ".join(f"{PREFER_VARIABLE}={name}={choice}" for choice in names)
        hint = f"{choices}; or pip uninstall what you do not need"
    else:
        hint = f"ask the authors of {names[0]} to declare the name once"
    problem = Problem("E102", f"{' and '.join(packages)} declare it", hint)
    if not winners:
        return dict.fromkeys(losers, problem)
    settled = f"{policy.sources.get('prefer', PREFER_VARIABLE)} prefers {preferred}"
    twice = replace(
        problem,
        cause=f"{winners[0].package} declares it more than once",
        hint=f"ask the authors of {preferred} to declare the name once",
    )
    return {item: twice if item in winners else settled for item in losers}


def _unmet_range(requires: Sequence[str], core_version: str) -> Requirement | None:
    """Return the requirement that the installed core does not meet, or `None`."""
    lines = [line for line in requires if _ON_CORE.match(line)]
    if not core_version or all(_is_plainly_met(line, core_version) for line in lines):
        return None
    from packaging.requirements import InvalidRequirement, Requirement

    for line in lines:
        try:
            requirement = Requirement(line)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        except InvalidRequirement:
            continue
        if applies and not requirement.specifier.contains(core_version, prereleases=True):
            return requirement
    return None


def _remedy(unmet: Requirement, core_version: str, distribution: str) -> str:
    """Return the command that makes a plugin and the core fit each other."""
    if not _is_core_too_old(unmet, core_version):
        # pip then takes a version of the plugin, and of the core with it, that fit together.
        return install_command(distribution, options="--upgrade")
    # Upgrading the plugin does nothing: pip has it already. Its own range says which core it needs.
    clauses = sorted(map(str, unmet.specifier), key=lambda clause: (clause.startswith(("<", "!")), clause))
    extras = f"[{','.join(sorted(unmet.extras))}]" if unmet.extras else ""
    return install_command(f"{unmet.name}{extras}{','.join(clauses)}", options="--upgrade")


def _is_core_too_old(unmet: Requirement, core_version: str) -> bool:
    """Check whether a newer core would meet a requirement that this one does not meet."""
    from packaging.version import InvalidVersion, Version

    for clause in unmet.specifier:
        if clause.contains(core_version, prereleases=True):
            continue
        if clause.operator == "!=":
            continue  # another version is wanted, and a newer one is at hand rather than an older one
        try:
            bound, core = Version(clause.version.removesuffix(".*")), Version(core_version)
        except InvalidVersion:  # `===` takes any text
            return False
        if clause.operator.startswith("<") or core > bound:
            return False  # what is installed is beyond the range
    return True


@functools.lru_cache(maxsize=1024)
def _is_plainly_met(line: str, core_version: str) -> bool:
    """Check whether a range like `>=0.1,<1` holds for a release. If `False`, `packaging` has to decide.

    Importing `packaging` takes longer than listing a hundred plugins, nearly all of which write
    their range like this.
    """
    if _FOR_AN_EXTRA.search(line):
        return True
    clauses = re.sub(r"^\s*\[[^]]*\]|[\s()]", "", line[len("stillhouse") :])  # without its extras
    if not _RELEASE.fullmatch(core_version):
        return False
    for clause in clauses.split(",") if clauses else ():
        bound = clause.lstrip("<>=")
        operator = clause[: len(clause) - len(bound)]
        if operator not in (">=", "<") or not _RELEASE.fullmatch(bound):
            return False
        if (_release(core_version) >= _release(bound)) != (operator == ">="):
            return False
    return True


def _release(version: str) -> list[int]:
    """Return the numbers of a release without the zeros at its end: 1.0 is 1."""
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers
