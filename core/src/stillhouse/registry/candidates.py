"""Discovery: what the installed distributions declare, read from their metadata alone.

Nothing here imports a plugin, pydantic or `packaging`; the one scan reads `entry_points.txt` of
every distribution and `METADATA` of those that declare something for Stillhouse.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import cast

import importlib_metadata

__all__ = ["HOOKS_GROUP", "LLMS_GROUP", "Candidate", "from_entry_points", "normalize", "scan"]

LLMS_GROUP = "stillhouse.llms"
HOOKS_GROUP = "stillhouse.hooks"

_logger = logging.getLogger("stillhouse.registry")


@dataclass(frozen=True)
class Candidate:
    """What one entry point says, before anything is imported.

    Attributes:
        name: the name under which the plugin is asked for.
        value: `module:attribute`.
        group: the entry-point group.
        distribution: the distribution's name as its metadata writes it; empty if unknown.
        version: the distribution's version; empty if unknown.
        summary: one line about the distribution.
        requires: its `Requires-Dist` lines.
        location: the folder that it is installed in.
        shadowed: folders later on `sys.path` (or earlier, without a declaration) that hold the
            same distribution again.
    """

    name: str
    value: str
    group: str
    distribution: str = ""
    version: str = ""
    summary: str = ""
    requires: tuple[str, ...] = ()
    location: str = ""
    shadowed: tuple[str, ...] = field(default=(), compare=False)

    @property
    def kind(self) -> str:
        """`llm` or `hook`."""
        return "hook" if _is_group(self.group, HOOKS_GROUP) else "llm"

    @property
    def entry_point(self) -> str:
        return f"{self.group}: {self.name} = {self.value}"

    @property
    def package(self) -> str:
        """Distribution and version, for people."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def sort_key(self) -> tuple[str, str, str, str]:
        return (self.name, normalize(self.distribution), self.group, self.value)


@dataclass(frozen=True)
class Scan:
    """Everything that one look at the installed distributions found, sorted."""

    candidates: tuple[Candidate, ...]
    core_version: str


def normalize(distribution: str) -> str:
    """A distribution's name in the form in which names are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def scan() -> Scan:
    """Look through the installed distributions, in the order of `sys.path`."""
    first_places: dict[str, str] = {}
    declared: dict[str, list[Candidate]] = {}
    repeated: dict[str, list[str]] = {}
    core_version = ""
    for distribution in cast("Iterator[importlib_metadata.Distribution]", importlib_metadata.distributions()):
        name = _quick_name(distribution)
        place = str(distribution.locate_file(""))
        if name in first_places and place != first_places[name]:
            repeated.setdefault(name, []).append(place)
        elif name in first_places:
            continue
        first_places.setdefault(name, place)
        if name == "stillhouse" and not core_version:
            core_version = _headers(distribution).get("version", [""])[0]
        if name not in declared:
            found = list(_declared_by(distribution))
            if found:
                declared[name] = found
    candidates = []
    for name, found in declared.items():
        places = [first_places[name], *repeated.get(name, ())]
        others = tuple(place for place in places if place != found[0].location)
        candidates += [_with_shadowed(candidate, others) for candidate in found]
    return Scan(tuple(sorted(candidates, key=lambda item: item.sort_key)), core_version)


def from_entry_points(entry_points: Iterable[importlib_metadata.EntryPoint], core_version: str) -> Scan:
    """A scan of given entry points instead of the installed ones, for tests and embedding."""
    candidates = []
    for entry_point in entry_points:
        headers = (
            _headers(cast("importlib_metadata.Distribution", entry_point.dist)) if entry_point.dist else {}
        )
        candidates.append(_candidate(entry_point, headers, ""))
    return Scan(tuple(sorted(candidates, key=lambda item: item.sort_key)), core_version)


def _with_shadowed(candidate: Candidate, shadowed: tuple[str, ...]) -> Candidate:
    if not shadowed:
        return candidate
    return Candidate(**{**vars(candidate), "shadowed": shadowed})


def _quick_name(distribution: importlib_metadata.Distribution) -> str:
    """The normalised name, from the name of the metadata's folder where there is one.

    Parsing the metadata of every installed package only to learn its name would be most of the
    cost of a scan.
    """
    path = getattr(distribution, "_path", None)
    stem, _, suffix = PurePath(str(path)).name.rpartition(".") if path is not None else ("", "", "")
    if suffix in ("dist-info", "egg-info"):
        return normalize(stem.partition("-")[0])
    return normalize(_headers(distribution).get("name", [""])[0])


def _declared_by(distribution: importlib_metadata.Distribution) -> Iterator[Candidate]:
    try:
        text = distribution.read_text("entry_points.txt")
        if not text or "stillhouse." not in text:
            return
        entry_points = [
            entry_point
            for entry_point in distribution.entry_points
            if _is_group(entry_point.group, LLMS_GROUP) or _is_group(entry_point.group, HOOKS_GROUP)
        ]
    except Exception as error:  # whatever is wrong with one package's metadata stays its own
        _logger.warning(
            "the entry points of %s cannot be read and are left out (%s); reinstall the package",
            distribution.locate_file(""),
            error,
        )
        return
    headers = _headers(distribution) if entry_points else {}
    for entry_point in entry_points:
        yield _candidate(entry_point, headers, str(distribution.locate_file("")))


def _candidate(
    entry_point: importlib_metadata.EntryPoint, headers: dict[str, list[str]], location: str
) -> Candidate:
    return Candidate(
        name=entry_point.name,
        value=entry_point.value,
        group=entry_point.group,
        distribution=headers.get("name", [""])[0],
        version=headers.get("version", [""])[0],
        summary=headers.get("summary", [""])[0],
        requires=tuple(headers.get("requires-dist", ())),
        location=location,
    )


def _is_group(group: str, base: str) -> bool:
    """Whether `group` is `base`, or `base` of some major version."""
    return group == base or group.startswith(f"{base}.")


def _headers(distribution: importlib_metadata.Distribution) -> dict[str, list[str]]:
    """The headers of a distribution's metadata: lower-case name to values.

    The email parser that `Distribution.metadata` uses takes ten times as long, and its cost is
    that of listing many plugins.
    """
    try:
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    except (OSError, UnicodeDecodeError):
        return {}
    headers: dict[str, list[str]] = {}
    values: list[str] = []
    for line in text.splitlines():
        if not line.strip():
            break
        if line[0] in " \t":
            if values:
                values[-1] += " " + line.strip()
            continue
        name, _, value = line.partition(":")
        values = headers.setdefault(name.strip().lower(), [])
        values.append(value.strip())
    return headers
