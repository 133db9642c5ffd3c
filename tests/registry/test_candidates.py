"""Discovery: metadata only, once, deterministic, and robust against anything on `sys.path`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest

import stillhouse.registry.candidates as candidates_module
from stillhouse.registry import Registry

EXPLODING = "raise RuntimeError('imported')"


def test_discovery_imports_no_plugin(site: Any) -> None:
    site.install_llm("exploding", "exploding", "exploding_module", EXPLODING)
    site.install("hooked", hooks={"hooked": "hooked_module"}, modules={"hooked_module": EXPLODING})
    registry = Registry()
    assert [(info.name, info.status) for info in site.infos(registry)] == [
        ("exploding", "found"),
        ("hooked", "found"),
    ]
    registry.available_llms()
    registry.warnings()
    assert not {"exploding_module", "hooked_module"} & sys.modules.keys()


def test_discovery_reports_the_package_metadata(site: Any) -> None:
    site.install(
        "Some.Plugin",
        "1.2.dev3",
        llms={"plain": "plain_module:Namespace.LLM [fast]"},
        summary="What it is: in a line",
        requires=["stillhouse>=0.0.1", "aiohttp"],
    )
    candidate = site.info(Registry()).candidate
    assert candidate.distribution == "Some.Plugin"
    assert candidate.version == "1.2.dev3"
    assert candidate.package == "Some.Plugin 1.2.dev3"
    assert candidate.summary == "What it is: in a line"
    assert candidate.requires == ("stillhouse>=0.0.1", "aiohttp")
    assert candidate.entry_point == "stillhouse.llms: plain = plain_module:Namespace.LLM [fast]"


def test_entry_point_attribute_may_be_nested_and_have_an_extra(site: Any) -> None:
    source = "import stillhouse\nclass Namespace:\n    LLM = stillhouse.EchoLLM\n"
    site.install(
        "nested", llms={"nested": "nested_module:Namespace.LLM [fast]"}, modules={"nested_module": source}
    )
    assert Registry().get_llm("nested").__name__ == "EchoLLM"


def test_one_scan_serves_all_calls_until_refresh(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install_llm("first", "first", "first_module")
    scans = 0
    distributions = importlib_metadata.distributions

    def counted(**kwargs: Any) -> Any:
        nonlocal scans
        scans += 1
        return distributions(**kwargs)

    monkeypatch.setattr(importlib_metadata, "distributions", counted)
    registry = Registry()
    assert scans == 0, "making a registry looks at nothing"
    registry.plugins()
    registry.warnings()
    registry.get_llm("first")
    registry.hooks()
    registry.check()
    assert scans == 1
    site.install_llm("second", "second", "second_module")
    assert len(site.infos(registry)) == 1, "what was found is remembered"
    registry.refresh()
    assert [info.name for info in site.infos(registry)] == ["first", "second"]
    assert registry.get_llm("second").__name__ == "FakeLLM"
    assert scans == 2


def test_plugin_order_does_not_depend_on_sys_path(
    make_site: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [make_site(name) for name in ("one", "two", "three")]
    for number, site in enumerate(sites):
        site.install_llm(f"dist-{3 - number}", f"name-{number}", f"order_{number}")
        site.install(f"rival-{number}", llms={"same-name": f"rival_{number}:LLM"})
    folders = [str(site.folder) for site in sites]

    def listed() -> list[tuple[str, str]]:
        infos = Registry().plugins()
        return [(info.name, info.package) for info in infos if info.candidate.location in folders]

    expected = listed()
    assert expected == sorted(expected)
    assert len(expected) == 6
    monkeypatch.setattr(
        sys, "path", [*reversed(folders), *(item for item in sys.path if item not in folders)]
    )
    assert listed() == expected


def test_llms_come_before_hooks(site: Any) -> None:
    site.install("mixed", llms={"z-llm": "m:Z"}, hooks={"a-hook": "m"})
    assert [info.name for info in site.infos(Registry())] == ["z-llm", "a-hook"]
    assert "a-hook" not in [info.name for info in Registry().available_llms()]


def test_metadata_is_read_for_matching_distributions_only(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        site.install(f"bystander-{number}")
    site.install_llm("matching", "matching", "matching_module")
    read: list[str] = []
    original = candidates_module._read

    def counted(distribution: Any, file: str) -> str:
        if str(distribution.locate_file("")) == str(site.folder):
            read.append(f"{distribution._path.name}/{file}")
        return original(distribution, file)

    monkeypatch.setattr(candidates_module, "_read", counted)
    Registry().plugins()
    assert [item for item in read if item.endswith("METADATA")] == ["matching-1.0.dist-info/METADATA"]
    assert len([item for item in read if item.endswith("entry_points.txt")]) == 6


def test_entry_points_of_other_groups_are_ignored(site: Any) -> None:
    site.install("other", groups={"stillhouse.readers": {"a": "b:c"}, "stillhouse.llmsx": {"d": "e:f"}})
    assert site.infos(Registry()) == []


def test_plugin_for_two_major_versions_has_no_problem(site: Any) -> None:
    site.install(
        "modern",
        llms={"modern": "modern_module:FakeLLM"},
        groups={"stillhouse.llms.v2": {"modern": "modern_module.v2:LLM"}},
    )
    info = site.info(Registry())
    assert (info.candidate.group, info.troubles) == ("stillhouse.llms", ())


# One distribution twice


@pytest.mark.parametrize("leftover", ["empty folder", "without entry points", "metadata only"])
def test_leftover_metadata_does_not_hide_the_installed_plugin(
    make_site: Callable[[str], Any], leftover: str
) -> None:
    real, stale = make_site("real"), make_site("stale")
    real.install_llm("plugin", "hidden", "hidden_module")
    folder = stale.folder / "plugin-0.9.dist-info"
    folder.mkdir()
    if leftover != "empty folder":
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 0.9\n")
    if leftover == "without entry points":
        (folder / "entry_points.txt").write_text("[console_scripts]\nplugin = plugin:main\n")
    registry = Registry()
    (info,) = [info for info in registry.plugins() if info.name == "hidden"]
    assert info.package == "plugin 1.0"
    assert [problem.code for problem in info.troubles] == ["W106"]
    assert str(real.folder) in info.troubles[0].cause
    assert str(folder) in info.troubles[0].cause
    assert registry.get_llm("hidden").__name__ == "FakeLLM"


def test_a_leftover_in_the_same_folder_does_not_hide_the_newest(site: Any) -> None:
    for version in ("0.9", "0.10", "0.2"):
        site.install("plugin", version, llms={"plugin": "plugin_module:FakeLLM"})
    (site.folder / "plugin-0.11.dist-info").mkdir()
    info = site.info(Registry())
    assert info.package == "plugin 0.10"
    (problem,) = info.troubles
    assert problem.code == "W106"
    assert all(f"plugin-{version}.dist-info" in problem.cause for version in ("0.9", "0.2", "0.11"))


def test_first_copy_on_sys_path_wins(make_site: Callable[[str], Any]) -> None:
    later, first = make_site("later"), make_site("first")
    later.install("My_Plugin", "2.0", llms={"plugin": "plugin_module:FakeLLM"})
    first.install("my-plugin", "1.0", llms={"plugin": "plugin_module:FakeLLM"})
    (info,) = [info for info in Registry().plugins() if info.name == "plugin"]
    assert info.package == "my-plugin 1.0"
    assert str(later.folder / "My_Plugin-2.0.dist-info") in info.troubles[0].cause


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege there")
def test_folder_reached_through_a_symlink_is_scanned_once(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On some systems lib64 is a link to lib, and both are on sys.path.
    site.install_llm("linked", "linked", "linked_module")
    (tmp_path / "lib64").symlink_to(site.folder)
    monkeypatch.syspath_prepend(str(tmp_path / "lib64"))
    monkeypatch.syspath_prepend(str(site.folder) + os.sep)
    (info,) = [info for info in Registry().plugins() if info.name == "linked"]
    assert info.troubles == ()


def test_an_editable_install_is_no_second_copy(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # setuptools leaves an egg-info in src/, and a .pth file puts src/ on sys.path.
    source = tmp_path / "a checkout" / "src"
    egg_info = source / "my_plugin.egg-info"
    egg_info.mkdir(parents=True)
    (egg_info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.0\n")
    (egg_info / "entry_points.txt").write_text("[stillhouse.llms]\nmine = mine_module:FakeLLM\n")
    info = site.install("my-plugin", llms={"mine": "mine_module:FakeLLM"})
    url = (tmp_path / "a checkout").as_uri()
    (info / "direct_url.json").write_text(f'{{"url": "{url}", "dir_info": {{"editable": true}}}}')
    for first in (site.folder, source):
        monkeypatch.syspath_prepend(str(first))
        (found,) = [info for info in Registry().plugins() if info.name == "mine"]
        assert found.troubles == (), f"{first} first"


# Metadata that cannot be read


@pytest.fixture
def healthy(site: Any) -> Any:
    site.install_llm("healthy", "healthy", "healthy_module")
    return site


def _names(site: Any, registry: Registry) -> list[str]:
    return [info.name for info in site.infos(registry)]


def test_malformed_entry_point_line_affects_only_itself(healthy: Any) -> None:
    info = healthy.install("malformed", llms={"good": "good_module:FakeLLM"})
    with (info / "entry_points.txt").open("a") as file:
        file.write("this is no entry point\n")
    registry = Registry()
    assert _names(healthy, registry) == ["good", "healthy"]
    line = len((info / "entry_points.txt").read_text().splitlines())
    assert registry.warnings() == [
        f"{info / 'entry_points.txt'}:{line} is not NAME = MODULE:ATTRIBUTE and is left out: reinstall malformed"
    ]


def test_malformed_line_of_another_group_is_ignored(healthy: Any) -> None:
    info = healthy.install("malformed", llms={"good": "good_module:FakeLLM"})
    text = (info / "entry_points.txt").read_text()
    (info / "entry_points.txt").write_text(
        "neither\n[broken\n" + text.replace("fake = fake:main", "no-script")
    )
    registry = Registry()
    assert _names(healthy, registry) == ["good", "healthy"]
    assert registry.warnings() == []


def test_entry_points_that_are_not_text(healthy: Any) -> None:
    info = healthy.install("undecodable", llms={"lost": "lost_module:FakeLLM"})
    with (info / "entry_points.txt").open("ab") as file:
        file.write(b"\xff\xfe = x:y\n")
    registry = Registry()
    assert _names(healthy, registry) == ["healthy"]
    assert registry.warnings() == [
        f"{info / 'entry_points.txt'} is not UTF-8, so the plugins in it are left out: reinstall undecodable"
    ]


def test_undecodable_entry_points_of_other_packages_are_ignored(healthy: Any) -> None:
    info = healthy.install("stranger")
    (info / "entry_points.txt").write_bytes(b"[console_scripts]\n\xff = x:y\n")
    registry = Registry()
    assert _names(healthy, registry) == ["healthy"]
    assert registry.warnings() == []


def test_metadata_that_is_not_text_leaves_the_plugin_usable(healthy: Any) -> None:
    info = healthy.install_llm("latin", "latin", "latin_module")
    (info / "METADATA").write_bytes(b"Name: latin\nSummary: caf\xe9\n")
    registry = Registry()
    assert _names(healthy, registry) == ["healthy", "latin"]
    (found,) = [info for info in registry.plugins() if info.name == "latin"]
    assert (found.candidate.distribution, found.candidate.version) == ("latin", "")
    assert registry.get_llm("latin").__name__ == "FakeLLM"


def test_a_missing_metadata_file_leaves_the_plugin_usable(healthy: Any) -> None:
    info = healthy.install_llm("bare", "bare", "bare_module")
    (info / "METADATA").unlink()
    registry = Registry()
    assert [found.package for found in site_infos(healthy, registry, "bare")] == ["bare"]
    assert registry.get_llm("bare").__name__ == "FakeLLM"


def site_infos(site: Any, registry: Registry, name: str) -> list[Any]:
    return [info for info in site.infos(registry) if info.name == name]


def test_folded_metadata_header_is_one_line(site: Any) -> None:
    info = site.install("folded", llms={"folded": "m:F"})
    (info / "METADATA").write_text(
        "Name: folded\nVersion: 1\nSummary: begins here\n        and ends there\n\nText\n"
    )
    assert site.info(Registry()).summary == "begins here and ends there"


# Given entry points instead of installed ones


def test_explicit_entry_points_replace_discovery(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install_llm("installed", "installed", "installed_module")
    monkeypatch.setattr(importlib_metadata, "distributions", lambda **_: pytest.fail("it looked around"))
    entry_point = importlib_metadata.EntryPoint("given", "installed_module:FakeLLM", "stillhouse.llms")
    registry = Registry(entry_points=[entry_point])
    assert [info.name for info in registry.plugins()] == ["echo", "given"]
    assert registry.get_llm("given").__module__ == "installed_module"


def test_given_entry_points_keep_their_distribution(site: Any) -> None:
    info = site.install_llm("installed", "installed", "installed_module")
    distribution = importlib_metadata.Distribution.at(info)
    registry = Registry(entry_points=distribution.entry_points.select(group="stillhouse.llms"))
    assert [info.package for info in registry.plugins() if info.name == "installed"] == ["installed 1.0"]
