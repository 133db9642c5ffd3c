"""A new distribution with a backend in it, as `stillhouse new` writes it.

The files come from `templates/`, by way of Jinja2: `common/` has what every backend has, and the
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

__all__ = ["Backend", "Kind", "render", "write"]

Kind = Literal["async", "http", "local"]
"""What a backend stands on: a coroutine, a server that it asks, or an engine in this process."""

_TEMPLATES = Path(__file__).parent / "templates"
_SUFFIX = ".jinja"
_PREFIX = "stillhouse-"


@dataclass(frozen=True)
class Backend:
    """A backend that is to be written, and what its files call it.

    Attributes:
        name: the name that people type; the prefix `stillhouse-`, if given, is the distribution's.
        kind: what it stands on.
        core_version: the version of stillhouse that it is written for.

    Raises:
        ConfigurationError: no backend or no distribution may have this name.
    """

    name: str
    kind: Kind
    core_version: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name.removeprefix(_PREFIX))
        if not NAME_PATTERN.fullmatch(self.name) or re.search(r"--|-$", self.name):
            raise ConfigurationError(
                f"{self.name!r} cannot be the name of a backend",
                hint="use small letters, digits, and single hyphens between them, such as my-backend",
            )
        if self.name in BUILT_IN:
            raise ConfigurationError(f"{self.name} is built into stillhouse", hint="choose another name")

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
        return f"{'' if words[0].isalpha() else 'Model'}{words}LLM"

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
        return f"The models of {self.name}"


def render(backend: Backend) -> dict[str, str]:
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
        if folder in ("common", backend.kind):
            path = _fill(environment.from_string(path), backend)
            files[path] = _fill(environment.get_template(template), backend)
    return files


def write(backend: Backend, parent: Path) -> Path:
    """Write the distribution into a new folder of its name, all of it or nothing.

    Raises:
        ConfigurationError: there is such a folder already, or it cannot be written.
    """
    target = parent / backend.distribution
    if target.exists() or target.is_symlink():
        raise ConfigurationError(f"{target} is there already", hint="choose another name, or use --into")
    files = render(backend)
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{backend.distribution}-", dir=parent))
        try:
            # What mkdtemp makes is open to its owner alone, so the distribution is a folder in it.
            draft = aside / backend.distribution
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


def _fill(template: jinja2.Template, backend: Backend) -> str:
    names = ("class_name", "distribution", "module", "name", "range", "requirement", "summary", "variable")
    return template.render({name: getattr(backend, name) for name in names})
