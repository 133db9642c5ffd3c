"""Trouble with a plugin, as data: what is wrong, why, and what to try."""

from __future__ import annotations

import re
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

from stillhouse.errors import PluginError
from stillhouse.registry.candidates import Candidate, normalize

__all__ = ["CODES", "Trouble", "location_of", "missing_module_hint", "plugin_error", "report"]

CODES: dict[str, str] = {
    "E101": "has a name that is not allowed",
    "E102": "claims a name that another distribution claims too",
    "E103": "claims the name of a built-in LLM",
    "E104": "is written for another major version of the contract",
    "E105": "needs another version of stillhouse",
    "W106": "is installed twice",
    "E201": "could not be imported",
    "E202": "is not where its entry point says",
    "E203": "is not a subclass of LLM",
    "E204": "leaves abstract members unimplemented",
    "E205": "has a generate method with a wrong signature",
    "E206": "has a hook that does not fit its specification",
    "E207": "has a field or parameter that cannot be described or stored",
    "W208": "takes long to import",
}
"""Every code, and what it says about a plugin."""


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong with a plugin.

    Attributes:
        code: a key of `CODES`; `E…` makes the plugin unusable, `W…` does not.
        cause: what was found.
        hint: what to try.
        exception: what was raised, for `E201` and its like.
    """

    code: str
    cause: str
    hint: str
    exception: BaseException | None = field(default=None, compare=False, repr=False)

    @property
    def severity(self) -> Literal["error", "warning"]:
        return "error" if self.code.startswith("E") else "warning"

    @property
    def message(self) -> str:
        return CODES[self.code]

    @property
    def traceback(self) -> str:
        if self.exception is None:
            return ""
        return "".join(traceback.format_exception(self.exception))


def report(candidate: Candidate, trouble: Trouble) -> str:
    """The trouble as people read it, over several lines."""
    subject = f'{candidate.kind} "{candidate.name}"'
    if candidate.package:
        subject += f" from {candidate.package}"
    lines = [
        f"{trouble.severity}[{trouble.code}] {subject} {trouble.message}",
        f"  entry point  {candidate.entry_point}",
        f"  cause        {trouble.cause}",
        f"  try          {trouble.hint}",
    ]
    if trouble.exception is not None:
        lines.append(f"  traceback    stillhouse check {candidate.name} --traceback")
    return "\n".join(lines)


def plugin_error(candidate: Candidate, trouble: Trouble) -> PluginError:
    """The exception for somebody who asks for this plugin."""
    return PluginError(
        report(candidate, trouble),
        code=trouble.code,
        entry_point=candidate.entry_point,
        distribution=candidate.package,
        hint=trouble.hint,
    )


def location_of(error: BaseException) -> str:
    """Where `error` was raised, as `package/module.py:line`, or an empty string."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_relative(error.filename)}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen ") and not _is_own_loader(frame.filename)
    ]
    return f"{_relative(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""


def _is_own_loader(filename: str) -> bool:
    path = PurePath(filename)
    return path.parent == PurePath(__file__).parent or "importlib" in path.parts[-2:]


def _relative(filename: str) -> str:
    """The path from the innermost folder of `sys.path` that holds it."""
    path = PurePath(filename)
    parents = [PurePath(entry) for entry in sys.path if entry]
    roots = [parent for parent in parents if path.is_relative_to(parent)]
    if not roots:
        return filename
    return path.relative_to(max(roots, key=lambda root: len(root.parts))).as_posix()


def missing_module_hint(candidate: Candidate, module: str, core_requires: tuple[str, ...]) -> str:
    """The command that most likely brings a missing module.

    An extra of the plugin or of the core that lists a distribution of that name is better than
    the bare name, for it also brings the right version.
    """
    top = normalize(module.partition(".")[0])
    for distribution, requires in (
        (candidate.distribution, candidate.requires),
        ("stillhouse", core_requires),
    ):
        for line in requires:
            name = re.match(r"[\w.-]+", line)
            extra = re.search(r"""extra\s*==\s*['"]([\w.-]+)['"]""", line)
            if name and extra and normalize(name.group()) == top:
                return f'pip install "{distribution}[{extra.group(1)}]"'
    if any(normalize(re.split(r"[^\w.-]", line, maxsplit=1)[0]) == top for line in candidate.requires):
        return f"pip install --upgrade {candidate.distribution}"
    return f"pip install {top}"
