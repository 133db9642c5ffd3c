"""What can be said about a candidate without importing it: names, groups, ranges, duplicates."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stillhouse.registry.candidates import HOOKS_GROUP, LLMS_GROUP, Candidate, normalize
from stillhouse.registry.policy import PREFER_VARIABLE, Policy
from stillhouse.registry.trouble import Trouble

__all__ = ["BUILT_IN", "NAME_PATTERN", "conflicts", "judge"]

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]*")

BUILT_IN: dict[str, str] = {"echo": "stillhouse.echo:EchoLLM"}
"""The built-in LLMs: name to `module:attribute`."""


def judge(candidate: Candidate, core_version: str) -> list[Trouble]:
    """The troubles of one candidate by itself."""
    troubles = []
    if not NAME_PATTERN.fullmatch(candidate.name):
        troubles.append(
            Trouble(
                "E101",
                f"{candidate.name!r} is not made of small letters, digits and hyphens",
                "ask the authors of the package for another name",
            )
        )
    if candidate.group not in (LLMS_GROUP, HOOKS_GROUP):
        known = HOOKS_GROUP if candidate.kind == "hook" else LLMS_GROUP
        troubles.append(
            Trouble(
                "E104",
                f"the group {candidate.group} is not known to stillhouse {core_version}, which reads {known}",
                "pip install --upgrade stillhouse",
            )
        )
    unmet = _unmet_range(candidate.requires, core_version)
    if unmet:
        troubles.append(
            Trouble(
                "E105",
                f"it requires {unmet}, and stillhouse {core_version} is installed",
                f'pip install --upgrade "{unmet}" {candidate.distribution}',
            )
        )
    if candidate.kind == "llm" and candidate.name in BUILT_IN:
        troubles.append(
            Trouble(
                "E103",
                f"{candidate.name} is built into stillhouse, and the built-in one is used",
                f"pip uninstall {candidate.distribution}, or ask the authors of the package for another name",
            )
        )
    if candidate.shadowed:
        troubles.append(
            Trouble(
                "W106",
                f"{candidate.location} is used, and {', '.join(candidate.shadowed)} holds it too",
                f"pip uninstall {candidate.distribution} as often as it is found, then install it once",
            )
        )
    return troubles


def conflicts(rivals: Sequence[Candidate], policy: Policy) -> dict[Candidate, Trouble]:
    """E102 for each of several candidates that claim one name, unless the policy prefers one.

    If it does, the others are still in conflict, for they cannot be used.
    """
    preferred = policy.prefer.get(rivals[0].name, "")
    winners = [item for item in rivals if normalize(item.distribution) == preferred]
    losers = [item for item in rivals if item not in winners[:1]]
    if len(rivals) < 2 or not losers:
        return {}
    packages = sorted({item.package for item in rivals})
    names = sorted({normalize(item.distribution) for item in rivals})
    if winners:
        source = policy.sources.get("prefer", PREFER_VARIABLE)
        cause = f"{' and '.join(packages)} both declare it, and {source} prefers {preferred}"
    else:
        cause = f"{' and '.join(packages)} both declare it"
    if len(names) > 1:
        hint = f"{PREFER_VARIABLE}={rivals[0].name}={names[0]} or ={names[1]}, or pip uninstall one of them"
    else:
        hint = f"ask the authors of {names[0]} to declare the name once"
    return {item: Trouble("E102", cause, hint) for item in losers}


def _unmet_range(requires: Sequence[str], core_version: str) -> str:
    """The requirement on the core that the installed core does not meet, or an empty string."""
    lines = [line for line in requires if re.match(r"stillhouse(?![\w.-])", line, re.IGNORECASE)]
    if not any(re.search(r"[<>=!~]", line.partition(";")[0]) for line in lines):
        return ""
    from packaging.requirements import InvalidRequirement, Requirement

    for line in lines:
        try:
            requirement = Requirement(line)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        except InvalidRequirement:
            continue
        if applies and not requirement.specifier.contains(core_version, prereleases=True):
            return f"{requirement.name}{requirement.specifier}"
    return ""
