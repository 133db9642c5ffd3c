"""The page of the installed backends, for what happens to be installed."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import importlib_metadata
import pytest

import stillhouse
from stillhouse.registry.policy import Policy

from .steps import DOCS


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS)
    import gallery

    return gallery


def written(folder: Path, name: str, **outcomes: str) -> None:
    rules = [{"id": id, "outcome": outcome} for id, outcome in outcomes.items()]
    suite = {"class": f"tests/{name}.py::Test", "backend": "stillhouse.echo.EchoLLM", "rules": rules}
    (folder / f"{name}.json").write_text(json.dumps([suite]))


def test_gallery_shows_the_worst_result_of_two_suites(gallery: ModuleType, tmp_path: Path) -> None:
    written(tmp_path, "one", C01="kept", C02="kept", C73="not declared", C50="skipped")
    written(tmp_path, "two", C01="kept", C02="broken", C73="not declared", C50="kept")
    assert "2 kept, 1 broken, 1 not declared" in gallery.written(tmp_path, tmp_path)["backends/echo.md"]


def test_gallery_claims_no_conformance_without_results(gallery: ModuleType, tmp_path: Path) -> None:
    assert "rules of the contract" not in gallery.written(tmp_path / "nowhere", tmp_path)["backends/echo.md"]


def test_a_broken_plugin_is_shown_with_its_report_and_spoils_nothing(
    gallery: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = importlib_metadata.EntryPoint("acme", "no_such_module_here:AcmeLLM", "stillhouse.llms")
    registry = stillhouse.Registry([broken], Policy())
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)
    pages = gallery.written(tmp_path, tmp_path)
    assert "error[E201]" in pages["backends/acme.md"]
    assert "`stillhouse.echo.EchoLLM`" in pages["backends/echo.md"]


def test_a_field_of_a_base_is_explained_on_one_page_only(gallery: ModuleType, tmp_path: Path) -> None:
    pages = gallery.written(tmp_path, tmp_path)
    shared = pages[gallery.SHARED]
    assert shared.count("| `generation_kwargs` |") == 1
    assert "| `generation_kwargs` |" not in pages["backends/echo.md"]
    assert "`generation_kwargs`" in pages["backends/echo.md"]
    assert "| `latency` |" in pages["backends/echo.md"]
    assert "`latency`" not in shared
