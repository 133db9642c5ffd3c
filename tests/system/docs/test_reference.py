"""The reference has every public name, and no other."""

from __future__ import annotations

import importlib
import inspect
import re
import runpy
from pathlib import Path

import pytest
from pydantic import BaseModel

from stillhouse import LLM
from stillhouse._deprecated import MOVED, RENAMED

from .steps import DOCS, ROOT

DIRECTIVES = [
    (page.name, name)
    for page in sorted(DOCS.glob("api/*.md"))
    for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.M)
]
PUBLIC: tuple[str, ...] = runpy.run_path(str(ROOT / "tests/project/surface.py"))["MODULES"]


def members(name: str) -> list[object]:
    """The object of a directive, or all public names of the module that it is."""
    if name in PUBLIC:
        module = importlib.import_module(name)
        return [getattr(module, member) for member in module.__all__]
    module, _, member = name.rpartition(".")
    return [getattr(importlib.import_module(module), member)]


@pytest.mark.parametrize(("page", "name"), DIRECTIVES)
def test_a_directive_names_what_may_be_imported(page: str, name: str) -> None:
    module = name if name in PUBLIC else name.rpartition(".")[0]
    assert module in PUBLIC, f"docs/api/{page}: plugins import from {', '.join(PUBLIC)}"
    assert name == module or name.rpartition(".")[2] in importlib.import_module(module).__all__


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_class_and_function_is_in_the_reference(module: str) -> None:
    documented = {id(member) for _, name in DIRECTIVES for member in members(name)}
    public = importlib.import_module(module)
    missing = [
        f"::: {module}.{name}"
        for name in public.__all__
        if (inspect.isclass(value := getattr(public, name)) or inspect.isfunction(value))
        and id(value) not in documented
    ]
    assert missing == [], "add them to a page in docs/api"


@pytest.mark.parametrize("page", [*DOCS.glob("*.md"), *DOCS.glob("api/*.md")], ids=lambda page: page.name)
def test_a_page_names_nothing_that_moved_or_was_renamed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [name for name in (*MOVED, *RENAMED) if re.search(rf"\b{re.escape(name)}\b", text)] == []


def test_the_contract_is_ordered_by_use_and_complete(site: Path) -> None:
    """The page names the members in its own order, so that a new one could be forgotten."""
    text = (site / "api/llm.html").read_text(encoding="utf-8")
    shown = re.findall(r'<h3 id="stillhouse\.LLM\.(\w+)"', text)
    own = [base for base in LLM.__mro__ if base.__module__.startswith("stillhouse")]
    public = {
        name
        for base in own
        for name, value in vars(base).items()
        if not name.startswith("_")
        and name not in LLM.model_fields
        and not hasattr(BaseModel, name)
        and inspect.getdoc(getattr(value, "__func__", value) if not isinstance(value, property) else value)
        and (callable(getattr(LLM, name)) or isinstance(value, property))
        and not isinstance(value, (dict, frozenset))
    }
    assert sorted(public - set(shown)) == []
    assert (
        shown.index("load")
        < shown.index("generate_outputs")
        < shown.index("generate")
        < shown.index("registry")
    )


def test_no_page_of_the_reference_shows_a_private_name(site: Path) -> None:
    shown = {
        identifier
        for page in (site / "api").glob("*.html")
        for identifier in re.findall(r'id="(stillhouse[\w.]*)"', page.read_text(encoding="utf-8"))
    }
    assert [name for name in sorted(shown) if re.search(r"\._", name)] == []
