"""What the installed packages offer under one policy, before anything is loaded: `Assessment`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from stillhouse._wording import install_command
from stillhouse.errors import UnknownLLMError
from stillhouse.registry.candidates import LLMS_GROUP, Candidate, Scan, normalize
from stillhouse.registry.info import PluginInfo, errors, unloaded
from stillhouse.registry.known import BUILT_IN
from stillhouse.registry.policy import Policy
from stillhouse.registry.problems import Problem
from stillhouse.registry.rules import conflicts, static_problems

__all__ = ["Assessment", "listing_order"]


class Assessment:
    """Every plugin of one scan under one policy, as its metadata shows it.

    Attributes:
        scan: what is installed.
        policy: which of it may be used.
        infos: every LLM and every hook plugin, with the built-in LLMs, in the order of a listing.
    """

    def __init__(self, scan: Scan, policy: Policy) -> None:
        self.scan = scan
        self.policy = policy
        installed = _installed(scan, policy)
        self.infos = tuple(sorted([*installed, *_built_in(scan.core_version)], key=listing_order))
        self._llms: dict[str, list[PluginInfo]] = {}
        for info in self.infos:
            if info.kind == "llm":
                self._llms.setdefault(info.name, []).append(info)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What the policy names that is not installed, aliases that are not used, and unreadable packages."""
        source = self.policy.sources.get("aliases", "the policy")
        unused = (
            f"{source} has the alias {name!r}, but that is an installed LLM, which wins; choose another name"
            for name in sorted(self.policy.aliases.keys() & self._llms.keys())
        )
        return (*self.scan.warnings, *self.policy.warnings(self.scan.candidates), *unused)

    def has_llm(self, name: str) -> bool:
        """Check whether an LLM of this name is installed, be it usable or not."""
        return name in self._llms

    def find(self, name: str, registered: Iterable[str]) -> PluginInfo:
        """Return the plugin that provides the LLM `name`, be it usable or not.

        Args:
            name: the name that was asked for.
            registered: the names of classes that are not installed, for the error's hint.

        Raises:
            UnknownLLMError: nothing of that name is installed, or it is switched off.
        """
        claimants = self._llms.get(name)
        if claimants is None:
            raise self.unknown(name, registered)
        available = [info for info in claimants if info.status != "disabled"]
        if not available:
            raise self._switched_off(claimants[0])
        return min(available, key=self._rank)

    def unknown(self, name: str, registered: Iterable[str]) -> UnknownLLMError:
        """Make the error for a name under which no LLM is installed; arguments as `find`."""
        # The table of what could be installed is read here and not before: a listing has no use for it.
        from stillhouse.registry.known import PACKAGES

        if name in PACKAGES:
            return UnknownLLMError(
                f'the LLM "{name}" is not installed', name=name, hint=install_command(PACKAGES[name])
            )
        if any(info.name == name for info in self.infos):
            return UnknownLLMError(
                f'"{name}" is a hook, not an LLM', name=name, hint="hooks are called by every LLM"
            )
        from stillhouse.registry.unknown import hint_for

        # A broken one may be what was meant: asking for it shows what is wrong with it.
        known = {info.name for infos in self._llms.values() for info in infos if info.status != "disabled"}
        names = {*known, *registered, *self.policy.aliases}
        return UnknownLLMError(f'there is no LLM "{name}"', name=name, hint=hint_for(name, names))

    def _rank(self, info: PluginInfo) -> tuple[bool, bool, bool]:
        """Sort the claimants of one name. Loading changes no rank: the answer is the same every time."""
        codes = {problem.code for problem in info.troubles if problem.severity == "error"}
        is_preferred = normalize(info.candidate.distribution) == self.policy.prefer.get(info.name, "")
        return "E103" in codes, not is_preferred, bool(codes)

    def _switched_off(self, info: PluginInfo) -> UnknownLLMError:
        distribution = normalize(info.candidate.distribution)
        source = self.policy.switched_off_by(distribution)
        denied = distribution in self.policy.deny
        return UnknownLLMError(
            f'the LLM "{info.name}" from {info.package} is switched off by {source}',
            name=info.name,
            hint=f"{'take' if denied else 'add'} {distribution} {'out of' if denied else 'to'} {source}",
        )


def listing_order(info: PluginInfo) -> tuple[bool, str, str, str, str]:
    """Sort LLMs before hooks, then by name."""
    return (info.kind != "llm", *info.candidate.sort_key)


def _installed(scan: Scan, policy: Policy) -> Iterator[PluginInfo]:
    by_name: dict[tuple[str, str], list[tuple[Candidate, list[Problem]]]] = {}
    for candidate in scan.candidates:
        if policy.switched_off_by(candidate.distribution):
            # A disabled plugin reports no problems: disabling is how a user silences them.
            yield PluginInfo(candidate.name, "disabled", candidate)
        else:
            problems = static_problems(candidate, scan.core_version)
            by_name.setdefault((candidate.kind, candidate.name), []).append((candidate, problems))
    for claimants in by_name.values():
        usable = [candidate for candidate, problems in claimants if not errors(problems)]
        conflicting = conflicts(usable, policy) if len(usable) > 1 else {}
        for candidate, problems in claimants:
            outcome = conflicting.get(candidate)
            if isinstance(outcome, Problem):
                problems.append(outcome)
            yield unloaded(candidate, problems, settled_by=outcome if isinstance(outcome, str) else "")


def _built_in(core_version: str) -> Iterator[PluginInfo]:
    for name, value in BUILT_IN.items():
        yield unloaded(
            Candidate(
                name=name,
                value=value,
                group=LLMS_GROUP,
                distribution="stillhouse",
                version=core_version,
                summary="Answers with its input; no model",
            )
        )
