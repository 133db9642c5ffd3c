"""What a listing says of each name, where one distribution brings several: read without importing it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from stillhouse.registry import Registry
from stillhouse.registry.summaries import own_summary

PACKAGE = {
    "__init__.py": """
        raise SystemExit("imported")
        from several.plain import (
            PlainLLM,  # the plain one
            Other as RenamedLLM,
        )
        from .deep import *
        from .deep.inner import InnerLLM
        def __getattr__(name): ...
    """,
    "plain.py": '''
        """A module."""
        class PlainLLM(
            Base[int], metaclass=Meta,
        ):
            # why
            r"""Asks the plain server; it has chats only.

            More.
            """
        class Other(Base): "Answers with one word."
        class NoLLM(Base):
            x = """not a docstring"""
    ''',
    "lazy.py": """
        class LazyLLM(Base):
            '''Found where nothing imports it, by a package that
            gives out its names lazily. And more.'''
    """,
    "made.py": "def __getattr__(name): ...",
    "made.pyi": """
        from several.plain import Base
        class MadeLLM(Base):
            '''Is made of a row of a table.'''
    """,
    "deep/__init__.py": "",
    "deep/inner.py": 'from ..lower import InnerLLM\n',
    "lower.py": 'class InnerLLM(Base):  # a comment\n    """Is v1.5 of the inner one."""\n',
}  # fmt: skip


@pytest.fixture
def several(site: Any) -> Any:
    import textwrap

    for name, source in PACKAGE.items():
        path = site.folder / "several" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return site


def test_each_name_of_a_distribution_says_what_it_is(several: Any) -> None:
    llms = {
        "plain": "several:PlainLLM",
        "renamed": "several:RenamedLLM",
        "lazy": "several:LazyLLM",
        "inner": "several:InnerLLM",
        "made": "several.made:MadeLLM",
        "undocumented": "several.plain:NoLLM",
        "absent": "several.plain:Nowhere",
        "nowhere": "no_such_module:LLM",
    }
    several.install("several", llms=llms, hooks={"watch": "several.plain"}, summary="Seven backends")
    assert {info.name: info.summary for info in several.infos(Registry())} == {
        "plain": "Asks the plain server",
        "renamed": "Answers with one word",
        "lazy": "Found where nothing imports it, by a package that gives out its names lazily",
        "inner": "Is v1.5 of the inner one",
        "made": "Is made of a row of a table",
        "undocumented": "Seven backends",
        "absent": "Seven backends",
        "nowhere": "Seven backends",
        "watch": "A module",
    }
    assert not [name for name in sys.modules if name.partition(".")[0] == "several"]


def test_distribution_with_one_plugin_has_its_own_summary(several: Any) -> None:
    several.install("several", llms={"plain": "several:PlainLLM"}, summary="A plain backend")
    assert several.info(Registry()).summary == "A plain backend"


@pytest.mark.parametrize(
    ("source", "summary"),
    [
        ('class C(B):\n    """' + "long word " * 50 + '"""', "long word " * 7 + "long word…"),
        ('class C(B):\n    """\x1b]0;title\x07Red\x9b2J."""', "]0;titleRed2J"),
        ('class C(B):\n    """never ends', ""),
        ("class C(B):\n" * 20_000, ""),
        ("from x import (" * 20_000, ""),
        ("from x import (\n" * 30_000, ""),
        ('class C(B):\n    """' + "a" * 600_000 + '"""', ""),
        ('class C(B):\n    """"""', ""),
        ("from m_odd import C", ""),
        ("class C:\n    pass\n", ""),
        ('class C(B): ...\nclass D(B):\n    """Another one."""\n', ""),
        ('class C[T: int](B, key={1: (2,)}):\n\n    """Its own."""\n', "Its own"),
        ('ROWS = [Row(class_name="C", about="Models of Acme. And more.")]', "Models of Acme"),
        ("ROWS = {'C': 'Acme\\'s models'}", "Acme's models"),
        ('ROWS = [Row("C", "Acme\'s \\"models\\"; "\n    "some more")]', 'Acme\'s "models"'),
        ('ROWS = [Row("C", about=(\n"Models of "\n"Acme."))]', "Models of Acme"),
        ('__all__ = ["C", "D"]\nC = make("https://api.acme.com", "Models of Acme")', ""),
        ('__all__ = ["C", "D"]\nC: dict = {"C": "Models of Acme"}', "Models of Acme"),
        ('ROWS = [Row("C", about=f"Models of {maker}")]', ""),
        ('"C", ' * 50_000, ""),
        ('"C", "' + "a " * 100_000, ""),
    ],
)
def test_odd_source_costs_little_and_says_little(site: Any, source: str, summary: str) -> None:
    (site.folder / "m_odd.py").write_text(source, encoding="utf-8")
    own_summary.cache_clear()
    assert own_summary("m_odd:C") == summary


def test_source_that_is_not_text_is_passed_over(site: Any) -> None:
    (site.folder / "m_odd.py").write_bytes(b"\xff\xfe\x00class C:")
    own_summary.cache_clear()
    assert own_summary("m_odd:C") == own_summary("m_odd") == ""


def test_class_in_a_zip_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("m_zipped.py", 'class C(B):\n    """In an archive."""\n')
    monkeypatch.syspath_prepend(str(tmp_path / "z.zip"))
    assert own_summary("m_zipped:C") == "In an archive"
