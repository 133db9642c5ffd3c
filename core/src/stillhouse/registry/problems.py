"""`Problem`: a fault of a plugin as data, with the cause and a suggested fix."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePath
from typing import Any, Literal

import importlib_metadata

from stillhouse._wording import install_command
from stillhouse.errors import PluginError
from stillhouse.registry.candidates import Candidate, normalize

__all__ = [
    "CODES",
    "Problem",
    "describe",
    "explanation_of",
    "location_of",
    "missing_module_hint",
    "plugin_error",
    "report",
    "source_of",
]

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
"""Each code, and what it says about a plugin."""

_CORE = PurePath(__file__).parents[1]


@dataclass(frozen=True)
class Problem:
    """A fault of a plugin.

    Attributes:
        code: a key of `CODES`; `E…` makes the plugin unusable, `W…` does not.
        cause: the cause.
        hint: a suggested fix.
        exception: the exception that the plugin raised, if any.
        summary: the meaning of the code for this plugin, if the text in `CODES` is too narrow.
    """

    code: str
    cause: str
    hint: str
    exception: BaseException | None = field(default=None, compare=False, repr=False)
    summary: str = field(default="", compare=False, repr=False)

    @property
    def severity(self) -> Literal["error", "warning"]:
        return "error" if self.code.startswith("E") else "warning"

    @property
    def message(self) -> str:
        return self.summary or CODES[self.code]

    @property
    def traceback(self) -> str:
        if self.exception is None:
            return ""
        return "".join(traceback.format_exception(self.exception))


def report(candidate: Candidate, problem: Problem) -> str:
    """Write a problem for people, over several lines."""
    subject = f'{candidate.kind} "{candidate.name}"'
    if candidate.package:
        subject += f" from {candidate.package}"
    lines = [
        f"{problem.severity}[{problem.code}] {subject} {problem.message}",
        f"  entry point  {candidate.entry_point}",
        f"  cause        {problem.cause}",
        f"  try          {problem.hint}",
    ]
    if problem.exception is not None:
        lines.append(f"  traceback    stillhouse check {candidate.name} --traceback")
    lines.append(f"  docs         {explanation_of(problem.code)}")
    return "\n".join(lines)


def explanation_of(code: str) -> str:
    """Return the address of a code's explanation.

    It is relative to the documentation, unless the core's metadata says where that is published.
    """
    return f"{_documentation()}registry.html#{code.lower()}"


@cache
def _documentation() -> str:
    """Return the address of the documentation, with a final slash, or an empty string."""
    try:
        metadata = importlib_metadata.metadata("stillhouse")
    except importlib_metadata.PackageNotFoundError:
        return ""
    for address in (metadata.get_all("Project-URL") if metadata else None) or []:
        label, _, url = str(address).partition(",")
        if label.strip().lower() == "documentation":
            return url.strip().rstrip("/") + "/"
    return ""


def plugin_error(candidate: Candidate, problem: Problem) -> PluginError:
    """Make the exception for a caller that asks for this plugin."""
    return PluginError(
        report(candidate, problem),
        code=problem.code,
        entry_point=candidate.entry_point,
        distribution=candidate.package,
        hint=problem.hint,
    )


def describe(error: BaseException) -> str:
    """Describe an exception in one line: its type, the first line of its message, where it was raised."""
    # A SyntaxError's own text repeats the file and the line.
    try:
        text = str(error.msg) if isinstance(error, SyntaxError) else str(error)
    except Exception:  # a plugin's own exception may be broken
        text = ""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    where = location_of(error)
    return type(error).__name__ + (f": {first}" if first else "") + (f" ({where})" if where else "")


def location_of(error: BaseException) -> str:
    """Return where `error` was raised, as `package/module.py:line`, or an empty string.

    Frames of the core and of pydantic are skipped: the mistake is in the code that called them.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_relative(error.filename)}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_skipped(frame.filename)]
    return f"{_relative(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""


def source_of(item: Any, member: str = "") -> str:
    """Return where a module, a class, a function or one field of a class is defined, in brackets.

    That is ` (package/module.py:line)`, or an empty string without source.
    """
    try:
        item = inspect.unwrap(item)
        file = inspect.getsourcefile(item) or ""
        if inspect.ismodule(item):
            return f" ({_relative(file)})" if file else ""
        lines, first = inspect.getsourcelines(item)
    except (OSError, TypeError, ValueError):
        return ""
    # Decorators come before the line of the definition, other fields before the field.
    definition = re.compile(rf"\s*{re.escape(member)}\s*[:=]" if member else r"\s*(class|async|def)\b")
    offset = next((number for number, line in enumerate(lines) if definition.match(line)), 0)
    return f" ({_relative(file)}:{first + offset})"


def _is_skipped(filename: str) -> bool:
    path = PurePath(filename)
    return (
        filename.startswith("<frozen ")
        or path.is_relative_to(_CORE)
        or "pydantic" in path.parts
        or path.parts[-2:-1] == ("importlib",)
    )


def _relative(filename: str) -> str:
    """Return the path relative to the innermost folder of `sys.path` that contains it."""
    path = PurePath(filename)
    parents = [PurePath(entry) for entry in sys.path if entry]
    roots = [parent for parent in parents if path.is_relative_to(parent)]
    if not roots:
        return filename
    return path.relative_to(max(roots, key=lambda root: len(root.parts))).as_posix()


def missing_module_hint(candidate: Candidate, module: str, core_requires: tuple[str, ...]) -> str:
    """Return the command that most likely installs a missing module, or what to look for.

    An extra of the plugin or of the core that lists a distribution of that name also installs the
    right version. If no metadata says which distribution has the module, none is named: a wrong
    guess installs a stranger's code.
    """
    top = module.partition(".")[0]
    if top == "stillhouse":
        return install_command(*filter(None, ("stillhouse", candidate.distribution)), options="--upgrade")
    if top == candidate.value.partition(":")[0].strip().partition(".")[0]:
        if not candidate.distribution:
            return f"correct {candidate.value}: there is no such module"
        return f"pip install --force-reinstall {candidate.distribution}; a file of it is missing"
    name = normalize(top)
    if any(_required(line) == name and not _extra(line) for line in candidate.requires):
        return install_command(candidate.distribution, options="--upgrade")
    for distribution, requires in (
        (candidate.distribution, candidate.requires),
        ("stillhouse", core_requires),
    ):
        for line in requires:
            if _required(line) == name and _extra(line):
                return install_command(f"{distribution}[{_extra(line)}]")
    return (
        f"install the package that brings the module {top}, often of the same name; "
        f"{candidate.distribution or 'the plugin'} does not say which"
    )


def _required(line: str) -> str:
    """Return the normalised name of the distribution that a `Requires-Dist` line requires."""
    return normalize(re.split(r"[^\w.-]", line, maxsplit=1)[0])


def _extra(line: str) -> str:
    """Return the extra that a `Requires-Dist` line belongs to, or an empty string."""
    found = re.search(r"""extra\s*==\s*['"]([\w.-]+)['"]""", line)
    return found.group(1) if found else ""
