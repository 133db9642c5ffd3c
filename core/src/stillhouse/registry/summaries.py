"""What a plugin says of itself, read from its source: nothing of it is imported or run.

A distribution has one summary, and may bring many plugins. Each is a class with a docstring.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

__all__ = ["own_summary"]

_MAX_LENGTH = 80
_MAX_FILE_BYTES = 512 * 1024
_MAX_FILES = 64
_MAX_STEPS = 5
"""Imports that are followed from the module of an entry point to that of its class."""

_DOCSTRING = (
    r"""\s*(?:\#[^\n]*\n\s*)*[rRuU]?(?P<quote>\"\"\"|'''|"|')(?P<text>(?:(?!(?P=quote)).)*)(?P=quote)"""
)
_AT_BEGINNING = re.compile(_DOCSTRING, re.S)
_LITERAL = re.compile(r"""\s*(?P<quote>["'])(?P<text>(?:(?!(?P=quote))[^\\\n]|\\.){0,1000})(?P=quote)""")
_IMPORT = re.compile(r"^[ \t]*from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]+(\([^)]{0,4000}\)|[^\n(]*)", re.M)


@functools.lru_cache(maxsize=1024)
def own_summary(value: str) -> str:
    """Return the first sentence of the docstring of a plugin's class or module, or an empty string.

    Args:
        value: `module:attribute`, as the entry point has it.
    """
    module, _, attribute = (part.strip() for part in value.partition(":"))
    attribute = attribute.partition("[")[0].strip()
    try:
        if not attribute:
            return _first_sentence(_text(_AT_BEGINNING.match(_source_of(module))))
        found = _docstring_of_class(module, attribute)
        return _first_sentence(_text(found)) if found else _first_sentence(_said_beside(module, attribute))
    except Exception:  # whatever a foreign finder raises, or a folder that cannot be read
        return ""


def _docstring_of_class(module: str, name: str) -> re.Match[str] | None:
    """Find the docstring of a class in its module, in the one it is imported from, or beside it."""
    first, first_name = module, name
    for _ in range(_MAX_STEPS):
        source = _source_of(module)
        body = _body_of_class(source, name)
        if body is not None:
            return _AT_BEGINNING.match(source, body)
        following = _imported_from(source, module, name)
        if following is None:
            break
        module, name = following
    # A class may be made when it is asked for; a stub then says to type checkers what it is.
    stub = _stub_of(module)
    body = _body_of_class(stub, name)
    if body is not None:
        return _AT_BEGINNING.match(stub, body)
    # A package may give out its names lazily, in whatever way.
    for source in _sources_beside(first):
        body = _body_of_class(source, first_name)
        if body is not None:
            return _AT_BEGINNING.match(source, body)
    return None


def _said_beside(module: str, name: str) -> str:
    """Return the text that follows the name of a class which is made when it is asked for.

    Such a class has its name and what it is in a table: `class_name="AcmeLLM", about="Models of Acme."`.
    """
    source = _source_of(module)
    for named in re.finditer(rf"""(["']){re.escape(name)}\1\s*[,:]\s*(?:\w+\s*=\s*)?\(?\s*""", source):
        texts = []
        literal = _LITERAL.match(source, named.end())
        while literal is not None:
            texts.append(re.sub(r"\\(.)", r"\1", literal["text"]))
            literal = _LITERAL.match(source, literal.end())
        text = "".join(texts)
        if " " in text:
            return text
    return ""


def _body_of_class(source: str, name: str) -> int | None:
    """Return where the body of a class begins: after the colon that is in no bracket."""
    header = re.compile(rf"^class[ \t]+{re.escape(name)}\b", re.M).search(source)
    depth = 0
    for position in range(header.end(), len(source)) if header else ():
        if source[position] in "([{":
            depth += 1
        elif source[position] in ")]}":
            depth -= 1
        elif source[position] == ":" and depth == 0:
            return position + 1
    return None


def _imported_from(source: str, module: str, name: str) -> tuple[str, str] | None:
    """Return the module from which a module imports a name, and the name there."""
    for origin, listed in _IMPORT.findall(source):
        for item in re.sub(r"#[^\n]*", "", listed).strip(" ()").split(","):
            words = item.split()
            if words and words[-1] == name:
                return _absolute(origin, module), words[0]
    return None


def _absolute(origin: str, module: str) -> str:
    """Return the module that a `from` names; leading dots count from the package of `module`."""
    relative = origin.lstrip(".")
    dots = len(origin) - len(relative)
    if not dots:
        return origin
    spec = _find(module)
    package = module.split(".")
    if spec is None or spec.submodule_search_locations is None:
        package = package[:-1]
    package = package[: len(package) - dots + 1]
    return ".".join([*package, *([relative] if relative else [])])


def _find(module: str) -> ModuleSpec | None:
    """Find a module as an import would, but import no package that it is in."""
    path: list[str] | None = None
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for number in range(1, len(parts) + 1):
        found = (finder.find_spec(".".join(parts[:number]), path, None) for finder in sys.meta_path)
        spec = next((item for item in found if item is not None), None)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec


def _source_of(module: str) -> str:
    spec = _find(module)
    if spec is None or spec.loader is None or not hasattr(spec.loader, "get_source"):
        return ""
    if spec.origin and Path(spec.origin).is_file() and Path(spec.origin).stat().st_size > _MAX_FILE_BYTES:
        return ""
    source: str | None = spec.loader.get_source(module)
    return source or ""


def _stub_of(module: str) -> str:
    spec = _find(module)
    file = Path(spec.origin).with_suffix(".pyi") if spec is not None and spec.origin else None
    if file is None or not file.is_file() or file.stat().st_size > _MAX_FILE_BYTES:
        return ""
    return file.read_text(encoding="utf-8", errors="replace")


def _sources_beside(module: str) -> Iterator[str]:
    """Yield the sources of the modules in a package's own folders."""
    spec = _find(module)
    folders = (spec.submodule_search_locations if spec else None) or ()
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.py"))]
    for file in files[:_MAX_FILES]:
        if file.stat().st_size <= _MAX_FILE_BYTES:
            yield file.read_text(encoding="utf-8", errors="replace")


def _text(docstring: re.Match[str] | None) -> str:
    return "" if docstring is None else docstring["text"]


def _first_sentence(text: str) -> str:
    """Return the first sentence of a docstring, in one line that fits a table."""
    paragraph = text.strip().partition("\n\n")[0]
    line = "".join(letter for letter in " ".join(paragraph.split()) if letter.isprintable())
    sentence = re.split(r"(?<=[^.\s])\.(?:\s|$)|;\s", line, maxsplit=1)[0]
    if len(sentence) <= _MAX_LENGTH:
        return sentence
    return f"{sentence[:_MAX_LENGTH].rpartition(' ')[0] or sentence[: _MAX_LENGTH - 1]}…"
