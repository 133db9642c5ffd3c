"""What the installed distributions declare, read from their metadata alone: `Candidate` and `Scan`.

Nothing here imports a plugin, pydantic or `packaging`; the one scan reads `entry_points.txt` of
every distribution and `METADATA` of those that declare something for Stillhouse.

Over 300 lines: reading metadata is one concern, with the reasons beside it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import importlib_metadata

__all__ = ["HOOKS_GROUP", "LLMS_GROUP", "Candidate", "Scan", "from_entry_points", "normalize", "scan"]

LLMS_GROUP = "stillhouse.llms"
HOOKS_GROUP = "stillhouse.hooks"

_Distribution = importlib_metadata.Distribution


@dataclass(frozen=True)
class Candidate:
    """The metadata of one entry point, before anything is imported.

    Attributes:
        name: the name of the plugin.
        value: `module:attribute`.
        group: the entry-point group.
        distribution: the distribution's name as its metadata writes it; empty if unknown.
        version: the distribution's version; empty if unknown.
        summary: one line about the distribution.
        requires: its `Requires-Dist` lines.
        location: the folder in which it is installed.
        shadowed: other metadata folders of the same distribution, either later on `sys.path` or earlier
            without a declaration.
        is_one_of_several: whether the distribution declares other plugins too, so that `summary` is not
            about this one alone.
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
    is_one_of_several: bool = field(default=False, compare=False)

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
    """Everything that one pass over the installed distributions found.

    Attributes:
        candidates: what they declare, in the order of `sys.path`.
        core_version: the version of stillhouse; empty if it is not installed as a distribution.
        warnings: a sentence for each distribution whose declarations cannot be read.
    """

    candidates: tuple[Candidate, ...]
    core_version: str
    warnings: tuple[str, ...] = ()


def normalize(distribution: str) -> str:
    """Return a distribution's name in the form in which names are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def scan() -> Scan:
    """Look through the installed distributions, in the order of `sys.path`.

    Of several copies of a distribution, the first that declares something counts: an empty folder
    left behind by an upgrade must not hide the real one.
    """
    copies: dict[str, list[_Distribution]] = {}
    for distribution in cast("Iterator[_Distribution]", importlib_metadata.distributions()):
        copies.setdefault(_quick_name(distribution), []).append(distribution)
    candidates: list[Candidate] = []
    warnings: list[str] = []
    for name, found in copies.items():
        if len(found) > 1:
            found = _distinct(found)
        for distribution in found:
            declared = _declared_by(distribution, name, warnings)
            if declared:
                shadowed = _shadowed_by(distribution, found) if len(found) > 1 else ()
                candidates += [replace(item, shadowed=shadowed) if shadowed else item for item in declared]
                break
    core_versions = (_version(distribution) for distribution in copies.get("stillhouse", ()))
    return Scan(
        candidates=tuple(candidates),
        core_version=next(filter(None, core_versions), ""),
        warnings=tuple(sorted(warnings)),
    )


def from_entry_points(entry_points: Iterable[importlib_metadata.EntryPoint], core_version: str) -> Scan:
    """Make a scan of given entry points instead of the installed ones, for tests and embedding."""
    candidates = []
    entry_points = list(entry_points)
    counts = Counter(id(entry_point.dist) for entry_point in entry_points if entry_point.dist)
    for entry_point in entry_points:
        several = counts[id(entry_point.dist)] > 1
        distribution = cast("_Distribution | None", entry_point.dist)
        headers = _headers(distribution) if distribution else {}
        candidates.append(
            _candidate(entry_point.name, entry_point.value, entry_point.group, headers, "", several)
        )
    return Scan(tuple(candidates), core_version)


def _metadata_folder(distribution: _Distribution) -> str:
    """Return the `.dist-info` or `.egg-info` folder, or an empty string."""
    return str(getattr(distribution, "_path", None) or "")


def _read(distribution: _Distribution, file: str) -> str:
    """Read a metadata file; the text of a missing one is empty.

    Reading a plain folder without the `Path` objects of `read_text` halves the cost of a scan.
    """
    folder = getattr(distribution, "_path", None)
    if not isinstance(folder, Path):
        return distribution.read_text(file) or ""
    try:
        with open(f"{folder}{os.sep}{file}", encoding="utf-8") as stream:  # noqa: PTH123
            return stream.read()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return ""


def _quick_name(distribution: _Distribution) -> str:
    """Return the normalised name, from the name of the metadata's folder if there is one.

    Parsing the metadata of every installed package only to learn its name would be most of the
    cost of a scan.
    """
    stem, suffix = os.path.splitext(os.path.basename(_metadata_folder(distribution)))  # noqa: PTH119, PTH122
    if suffix in (".dist-info", ".egg-info"):
        return normalize(stem.partition("-")[0])
    return normalize(_headers(distribution).get("name", [""])[0])


def _version(distribution: _Distribution) -> str:
    return _headers(distribution).get("version", [""])[0]


def _distinct(copies: list[_Distribution]) -> list[_Distribution]:
    """Return the copies without repetitions of one folder, the newest of a location first.

    One folder is on `sys.path` twice where `lib64` is a link to `lib`. Within a folder the order
    would be the file system's.
    """
    by_place: dict[str, dict[str, _Distribution]] = {}
    for distribution in copies:
        # A foreign finder may know no folder; then two copies cannot be compared.
        path = _metadata_folder(distribution)
        folder = os.path.realpath(path) if path else str(id(distribution))
        by_place.setdefault(os.path.dirname(folder), {}).setdefault(folder, distribution)  # noqa: PTH120
    return [
        distribution
        for place in by_place.values()
        for distribution in sorted(place.values(), key=_age, reverse=True)
    ]


def _age(distribution: _Distribution) -> tuple[list[int], str]:
    """Sort the folders of one distribution by the version in their names."""
    name = os.path.basename(_metadata_folder(distribution))  # noqa: PTH119
    return [int(part) for part in re.findall(r"\d+", name.partition("-")[2])], name


def _shadowed_by(used: _Distribution, copies: Sequence[_Distribution]) -> tuple[str, ...]:
    """Return where the other copies are, except the source folder of an editable install."""
    sources = [source for source in map(_editable_source, copies) if source is not None]
    return tuple(
        _metadata_folder(distribution) or str(distribution.locate_file(""))
        for distribution in copies
        if distribution is not used
        and not any(
            Path(os.path.realpath(_metadata_folder(item))).is_relative_to(source)
            for source in sources
            for item in (used, distribution)
        )
    )


def _editable_source(distribution: _Distribution) -> Path | None:
    """Return the folder that `pip install --editable` points to. setuptools keeps an egg-info there."""
    import json
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        origin = json.loads(_read(distribution, "direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):
            return Path(os.path.realpath(url2pathname(urlsplit(origin["url"]).path)))
    except (OSError, ValueError, KeyError, AttributeError):
        pass
    return None


def _declared_by(distribution: _Distribution, name: str, warnings: list[str]) -> list[Candidate]:
    """Return what a distribution declares for Stillhouse. Its broken metadata affects no other one."""
    folder = _metadata_folder(distribution)
    file = f"{folder}{os.sep}entry_points.txt"
    try:
        text = _read(distribution, "entry_points.txt")
    except UnicodeDecodeError as error:
        if b"stillhouse." in error.object:
            warnings.append(f"{file} is not UTF-8, so the plugins in it are left out: reinstall {name}")
        return []
    except Exception as error:  # no permission, or whatever a foreign finder raises
        warnings.append(f"{file} cannot be read, so plugins in it are left out: {error}")
        return []
    if "stillhouse." not in text:
        return []
    entries: list[tuple[str, str, str]] = []
    group = ""
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif line and line[0] not in "#;" and (_is_group(group, LLMS_GROUP) or _is_group(group, HOOKS_GROUP)):
            entry, separator, value = line.partition("=")
            if separator:
                entries.append((entry.strip(), value.strip(), group))
            else:
                warnings.append(
                    f"{file}:{number} is not NAME = MODULE:ATTRIBUTE and is left out: reinstall {name}"
                )
    if not entries:
        return []
    headers = {"name": [name], **_headers(distribution)}
    location = os.path.dirname(folder) or str(distribution.locate_file(""))  # noqa: PTH120
    found = [_candidate(*entry, headers, location, len(entries) > 1) for entry in entries]
    ours = {(item.kind, item.name) for item in found if item.group in (LLMS_GROUP, HOOKS_GROUP)}
    # A plugin may serve several majors of the contract, side by side: ours is the one that counts.
    return [
        item
        for item in found
        if item.group in (LLMS_GROUP, HOOKS_GROUP) or (item.kind, item.name) not in ours
    ]


def _candidate(
    name: str, value: str, group: str, headers: dict[str, list[str]], location: str, is_one_of_several: bool
) -> Candidate:
    return Candidate(
        name=name,
        value=value,
        group=group,
        distribution=headers.get("name", [""])[0],
        version=headers.get("version", [""])[0],
        summary=headers.get("summary", [""])[0],
        requires=tuple(headers.get("requires-dist", ())),
        location=location,
        is_one_of_several=is_one_of_several,
    )


def _is_group(group: str, base: str) -> bool:
    """Check whether `group` is `base`, or `base` of some major version."""
    return group == base or group.startswith(f"{base}.")


def _headers(distribution: importlib_metadata.Distribution) -> dict[str, list[str]]:
    """Return the headers of a distribution's metadata: lower-case name to values.

    The email parser that `Distribution.metadata` uses takes ten times as long, and would be
    most of the cost of listing many plugins.
    """
    try:
        text = _read(distribution, "METADATA") or _read(distribution, "PKG-INFO")
    except Exception:  # not UTF-8, no permission, or whatever a foreign finder raises
        return {}
    headers: dict[str, list[str]] = {}
    values: list[str] = []
    # An empty line ends the headers; after it comes the whole README of the package.
    for line in text.lstrip().partition("\n\n")[0].splitlines():
        if line[:1] in (" ", "\t"):
            if values:
                values[-1] += " " + line.strip()
            continue
        name, _, value = line.partition(":")
        values = headers.setdefault(name.strip().lower(), [])
        values.append(value.strip())
    return headers
