"""Packages that are not really installed: folders of metadata and modules on `sys.path`."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest

from stillhouse.registry import PluginInfo, Registry

LLM_SOURCE = """
import stillhouse


class FakeLLM(stillhouse.AsyncLLM):
    model: str = "fake"

    @property
    def model_name(self):
        return self.model

    async def agenerate(self, input, num_generations=1, temperature: float = 1.0):
        return {"generations": ["fake"] * num_generations, "statistics": {}}
"""


class Site:
    """A folder on `sys.path`, and what is put into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def install(
        self,
        distribution: str,
        version: str = "1.0",
        *,
        llms: Mapping[str, str] | None = None,
        hooks: Mapping[str, str] | None = None,
        groups: Mapping[str, Mapping[str, str]] | None = None,
        requires: Sequence[str] = (),
        summary: str = "A fake plugin",
        modules: Mapping[str, str] | None = None,
    ) -> Path:
        """Write the `.dist-info` of a distribution, and modules of it by name."""
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = [
            "Metadata-Version: 2.3",
            f"Name: {distribution}",
            f"Version: {version}",
            f"Summary: {summary}",
        ]
        lines += [f"Requires-Dist: {line}" for line in requires]
        (info / "METADATA").write_text("\n".join([*lines, "", "A README, with Name: something else", ""]))
        sections = {"stillhouse.llms": llms or {}, "stillhouse.hooks": hooks or {}, **(groups or {})}
        text = "[console_scripts]\nfake = fake:main\n"
        for group, entries in sections.items():
            if entries:
                text += f"\n[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        (info / "entry_points.txt").write_text(text)
        for name, source in (modules or {}).items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        return info

    def install_llm(self, distribution: str, name: str, module: str, source: str = LLM_SOURCE) -> Path:
        """A distribution with one LLM, `module:FakeLLM`."""
        return self.install(distribution, llms={name: f"{module}:FakeLLM"}, modules={module: source})

    def infos(self, registry: Registry) -> list[PluginInfo]:
        """What the registry says of the distributions in this folder."""
        return [info for info in registry.plugins() if info.candidate.location == str(self.folder)]

    def info(self, registry: Registry) -> PluginInfo:
        (info,) = self.infos(registry)
        return info


@pytest.fixture
def make_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Site]]:
    """Make a further folder and put it first on `sys.path`."""

    def make(name: str) -> Site:
        made = Site(tmp_path / name)
        monkeypatch.syspath_prepend(str(made.folder))
        return made

    yield make
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def site(make_site: Callable[[str], Site]) -> Site:
    return make_site("site")


@pytest.fixture(autouse=True)
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config file that is read in the place of the tester's own; it does not exist yet.

    Nor do the switches of the tester's environment count.
    """
    path = tmp_path / "config" / "stillhouse" / "config.toml"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr("stillhouse.registry.policy.config_file", lambda: path)
    for variable in ("STILLHOUSE_PLUGINS", "STILLHOUSE_DISABLE_PLUGINS", "STILLHOUSE_PREFER"):
        monkeypatch.delenv(variable, raising=False)
    return path


@pytest.fixture(autouse=True)
def _without_plugins_of_the_tester(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a developer has installed beside the core is not there: a real cache would answer."""
    distributions = importlib_metadata.distributions

    def without_them(**kwargs: Any) -> Iterator[importlib_metadata.Distribution]:
        for distribution in distributions(**kwargs):
            if not Path(str(distribution._path)).name.startswith("stillhouse_"):
                yield distribution

    monkeypatch.setattr(importlib_metadata, "distributions", without_them)
