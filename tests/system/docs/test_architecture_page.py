"""The page on the architecture: its pictures are those of the code, and what it names exists."""

from __future__ import annotations

import configparser
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest

from .steps import DOCS, ROOT

CORE = ROOT / "core/src/stillhouse"


@pytest.fixture
def architecture(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS)
    import architecture

    return architecture


@pytest.fixture
def page(architecture: ModuleType) -> str:
    return architecture.filled((DOCS / "architecture.md").read_text(encoding="utf-8"))


def listed(contract: str) -> list[list[str]]:
    settings = configparser.ConfigParser()
    settings.read(ROOT / ".importlinter", encoding="utf-8")
    lines = settings[f"importlinter:contract:{contract}"]["layers"].split("\n")
    return [line.split(" | ") for line in lines if line]


def names(floors: list[list[object]]) -> list[list[str]]:
    return [[entry.name for entry in floor] for floor in floors]


def test_drawn_layers_match_the_import_linter_contract(architecture: ModuleType) -> None:
    drawn = architecture.floors()
    assert names(drawn) == listed("floors")
    (jobs,) = [entry for floor in drawn for entry in floor if entry.name == "jobs"]
    assert names(jobs.floors) == listed("jobs")
    assert jobs.modules == len([*(CORE / "jobs").rglob("*.py")])


def test_a_floor_that_does_not_exist_is_an_error(architecture: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / ".importlinter"
    file.write_text(
        "[importlinter]\nroot_packages = stillhouse\n[importlinter:contract:floors]\ntype = layers\n"
        "containers = stillhouse\nlayers =\n    cli\n    cellar\n"
    )
    with pytest.raises(LookupError, match=r"stillhouse\.cellar is on a floor"):
        architecture.floors(file)


def test_every_stop_exists_and_has_a_sentence(architecture: ModuleType) -> None:
    for path in architecture.PATHS.values():
        for stop in architecture.stops(path):
            assert stop.sentence
            assert architecture.resolve(stop.anchor) == (stop.anchor, stop.sentence)


@pytest.mark.parametrize(
    "anchor",
    [
        "stillhouse.llm:NoSuchLLM",
        "stillhouse.llm:LLM.no_such_method",
        "stillhouse.registry:Registry.no_such_method",
        "stillhouse.no_such_module:LLM",
        "stillhouse.llm",
    ],
)
def test_a_stop_that_does_not_exist_is_an_error(architecture: ModuleType, anchor: str) -> None:
    with pytest.raises(LookupError, match="does not exist"):
        architecture.stops((("a stop", anchor),))


def test_a_stop_without_a_docstring_is_an_error(architecture: ModuleType) -> None:
    with pytest.raises(LookupError, match="has no docstring"):
        architecture.resolve("stillhouse:__getattr__")


def test_public_name_resolves_to_its_defining_module(architecture: ModuleType) -> None:
    assert architecture.resolve("stillhouse:LLM")[0] == "stillhouse.llm:LLM"
    assert architecture.resolve("stillhouse:LLM.load")[0] == "stillhouse.llm:LLM.load"


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("One. Two.", "One."),
        ("Not at `a.b`, but\n    here\n\nMore.", "Not at `a.b`, but here"),
        ("Version 0.1 of it! And more.", "Version 0.1 of it!"),
    ],
)
def test_first_sentence(architecture: ModuleType, docstring: str, sentence: str) -> None:
    assert architecture.first_sentence(docstring, "it") == sentence


def test_every_part_of_the_core_is_on_the_page(page: str) -> None:
    parts = {path.stem for path in CORE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert sorted(part for part in parts - {"__init__"} if f"| `{part}` |" not in page) == []
    for part in parts - {"__init__"}:
        assert len(re.findall(rf">{part}</text>", page)) == 2, part  # on a screen and on a phone


def test_every_folder_on_the_page_exists() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/.]+(?:/|\.py))`", text))
    assert "jobs/runs/" in named
    roots = [CORE, CORE.parent, ROOT]
    assert sorted(name for name in named if not any((root / name).exists() for root in roots)) == []


def test_a_picture_that_nobody_draws_is_an_error(architecture: ModuleType) -> None:
    with pytest.raises(LookupError, match="no picture 'roof'"):
        architecture.filled("<!-- picture: roof -->")


def test_every_drawing_is_well_formed_and_says_what_it_shows(page: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(drawings) == 6
    for drawing in drawings:
        svg = ElementTree.fromstring(drawing)
        assert svg.get("role") == "img"
        assert svg.get("aria-label")
        assert svg.findtext("desc")
        assert "\n" not in drawing  # in Markdown, an empty line would end it
