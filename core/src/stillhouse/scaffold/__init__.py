"""A new distribution with a plugin in it, as `stillhouse new` writes it.

The files come from `templates/`, by way of Jinja2: `common/` has what every plugin has, and the
folder of a kind adds to it. A project generator such as copier or cookiecutter would bring nine
packages, for questions, updates and hooks that nobody here asks for; Jinja2 is there already, and
what is left is the loop below.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stillhouse.errors import ConfigurationError
from stillhouse.registry.known import BUILT_IN
from stillhouse.registry.rules import NAME_PATTERN

if TYPE_CHECKING:
    import jinja2

__all__ = ["Kind", "Package", "render", "write"]

Kind = Literal["async", "http", "local", "hook", "reader", "writer"]
"""What a backend stands on: a coroutine, a server that it asks, or an engine in this process; or, if it is no
backend, what its hooks do: take part in runs, open sources, or open targets."""

_CLASSES: dict[Kind, str] = {"hook": "Hooks", "reader": "Reader", "writer": "Writer"}
"""What the name of a class ends with, if it is no LLM."""

_TEMPLATES = Path(__file__).parent / "templates"
_SUFFIX = ".jinja"
_PREFIX = "stillhouse-"


@dataclass(frozen=True)
class Package:
    """A package that is to be written, and what its files call it.

    Attributes:
        name: the name that people type; the prefix `stillhouse-`, if given, is the distribution's.
        kind: what is in it.
        core_version: the version of stillhouse that it is written for.

    Raises:
        ConfigurationError: no plugin or no distribution may have this name.
    """

    name: str
    kind: Kind
    core_version: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name.removeprefix(_PREFIX))
        if not NAME_PATTERN.fullmatch(self.name) or re.search(r"--|-$", self.name):
            raise ConfigurationError(
                f"{self.name!r} cannot be the name of a {self.noun}",
                hint=f"use small letters, digits, and single hyphens between them, such as my-{self.noun}",
            )
        if self.plugin_kind == "llm" and self.name in BUILT_IN:
            raise ConfigurationError(f"{self.name} is built into stillhouse", hint="choose another name")

    @property
    def plugin_kind(self) -> Literal["llm", "hook"]:
        """What the registry calls it."""
        return "hook" if self.kind in _CLASSES else "llm"

    @property
    def noun(self) -> str:
        """What it is called in a sentence."""
        return self.kind if self.kind in _CLASSES else "backend"

    @property
    def group(self) -> str:
        """The group of its entry point."""
        return f"stillhouse.{self.plugin_kind}s"

    @property
    def entry_point(self) -> str:
        """What its entry point names: a class, an object, or the module itself."""
        objects = {"hook": ":plugin", "reader": "", "writer": ""}
        return f"{self.module}{objects.get(self.kind, f':{self.class_name}')}"

    @property
    def distribution(self) -> str:
        """The prefix keeps it apart from the client or the engine that it is for."""
        return f"{_PREFIX}{self.name}"

    @property
    def module(self) -> str:
        return self.distribution.replace("-", "_")

    @property
    def class_name(self) -> str:
        words = "".join(word.capitalize() for word in self.name.split("-"))
        start = "" if words[0].isalpha() else {"hook": "Some", "llm": "Model"}[self.plugin_kind]
        return f"{start}{words}{_CLASSES.get(self.kind, 'LLM')}"

    @property
    def variable(self) -> str:
        """What its environment variables begin with."""
        prefix = "" if self.name[0].isalpha() else "LLM_"
        return prefix + self.name.replace("-", "_").upper()

    @property
    def range(self) -> str:
        """The versions of stillhouse that keep what this one promises."""
        major, minor = (int(part) for part in self.core_version.split(".")[:2])
        end = f"{major + 1}" if major else f"0.{minor + 1}"
        return f">={major}.{minor},<{end}"

    @property
    def requirement(self) -> str:
        # `schema` is for structured output, which a backend that asks a server is soon to have.
        return f"stillhouse{'[http,schema]' if self.kind == 'http' else ''}{self.range}"

    @property
    def summary(self) -> str:
        summaries = {
            "hook": f"Hooks that watch runs: {self.name}",
            "reader": f"Reads the rows of {self.name} sources",
            "writer": f"Writes rows to {self.name} targets",
        }
        return summaries.get(self.kind, f"The models of {self.name}")


def render(package: Package) -> dict[str, str]:
    """The files of the distribution: path, with slashes, to text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701  -- the files are no web pages
    )
    files = {}
    # `common/` first: a kind's own file wins over it, and may extend it.
    for template in sorted(environment.list_templates(), key=lambda path: not path.startswith("common/")):
        folder, _, path = template.removesuffix(_SUFFIX).partition("/")
        if folder in ("common", package.kind):
            path = _fill(environment.from_string(path), package)
            files[path] = _fill(environment.get_template(template), package)
    return files


def write(package: Package, parent: Path) -> Path:
    """Write the distribution into a new folder of its name, all of it or nothing.

    Raises:
        ConfigurationError: there is such a folder already, or it cannot be written.
    """
    target = parent / package.distribution
    if target.exists() or target.is_symlink():
        raise ConfigurationError(f"{target} already exists", hint="choose another name, or use --into")
    files = render(package)
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{package.distribution}-", dir=parent))
        try:
            # What mkdtemp makes is open to its owner alone, so the distribution is a folder in it.
            draft = aside / package.distribution
            for path, text in files.items():
                file = draft / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8", newline="\n")
            draft.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise ConfigurationError(
            f"{target} cannot be written: {error.strerror or error}", hint="use --into with another folder"
        ) from error
    return target


def _fill(template: jinja2.Template, package: Package) -> str:
    names = (
        "class_name", "distribution", "entry_point", "group", "module", "name", "noun", "range",
        "requirement", "summary", "variable",
    )  # fmt: skip
    return template.render({name: getattr(package, name) for name in names})
