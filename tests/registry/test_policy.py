"""The switches: which plugins may be used, and who brings a name that several claim."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stillhouse import ConfigurationError, PluginError, UnknownLLMError
from stillhouse.registry import Policy, Registry


@pytest.fixture
def pair(site: Any) -> Any:
    """Two healthy plugins, `one` from `Plug_One` and `two` from `plug-two`."""
    site.install_llm("Plug_One", "one", "one_module")
    site.install_llm("plug-two", "two", "two_module")
    return site


def statuses(site: Any, registry: Registry | None = None) -> dict[str, str]:
    return {info.name: info.status for info in site.infos(registry or Registry())}


def test_every_plugin_is_allowed_without_switches(pair: Any) -> None:
    assert statuses(pair) == {"one": "found", "two": "found"}
    assert Registry().warnings() == []


@pytest.mark.parametrize("spelling", ["plug-one", "Plug_One", "PLUG.ONE", " plug--one , ", ",plug_one"])
def test_the_allow_list_in_any_spelling(pair: Any, monkeypatch: pytest.MonkeyPatch, spelling: str) -> None:
    monkeypatch.setenv("STILLHOUSE_PLUGINS", spelling)
    assert statuses(pair) == {"one": "found", "two": "disabled"}
    assert Registry().warnings() == []


def test_an_empty_allow_list_means_none_but_what_is_built_in(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLHOUSE_PLUGINS", "")
    registry = Registry()
    assert statuses(pair, registry) == {"one": "disabled", "two": "disabled"}
    assert registry.get_llm("echo").__name__ == "EchoLLM"


def test_the_deny_list_wins_over_the_allow_list(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_PLUGINS", "plug-one,plug-two")
    monkeypatch.setenv("STILLHOUSE_DISABLE_PLUGINS", "plug.two")
    assert statuses(pair) == {"one": "found", "two": "disabled"}


def test_the_switches_are_read_at_every_call(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    registry.get_llm("one")
    monkeypatch.setenv("STILLHOUSE_DISABLE_PLUGINS", "plug-one")
    assert statuses(pair, registry)["one"] == "disabled"
    with pytest.raises(UnknownLLMError):
        registry.get_llm("one")
    monkeypatch.delenv("STILLHOUSE_DISABLE_PLUGINS")
    assert registry.get_llm("one").__name__ == "FakeLLM"


def test_a_disabled_plugin_is_not_imported_even_by_check(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.install("hooked", hooks={"hooked": "hooked_module"}, modules={"hooked_module": "1 / 0"})
    monkeypatch.setenv("STILLHOUSE_PLUGINS", "plug-one")
    registry = Registry()
    registry.check()
    registry.hooks()
    assert "one_module" in sys.modules
    assert not {"two_module", "hooked_module"} & sys.modules.keys()


def test_error_names_the_switch_that_disables_a_plugin(
    pair: Any, monkeypatch: pytest.MonkeyPatch, config_file: Path
) -> None:
    def refusal() -> tuple[str, str]:
        with pytest.raises(UnknownLLMError) as caught:
            Registry().get_llm("one")
        return caught.value.message, caught.value.hint

    subject = 'the LLM "one" from Plug_One 1.0 is switched off by '
    monkeypatch.setenv("STILLHOUSE_DISABLE_PLUGINS", "plug-one")
    assert refusal() == (
        subject + "STILLHOUSE_DISABLE_PLUGINS",
        "take plug-one out of STILLHOUSE_DISABLE_PLUGINS",
    )
    monkeypatch.delenv("STILLHOUSE_DISABLE_PLUGINS")
    monkeypatch.setenv("STILLHOUSE_PLUGINS", "plug-two")
    assert refusal() == (subject + "STILLHOUSE_PLUGINS", "add plug-one to STILLHOUSE_PLUGINS")
    monkeypatch.delenv("STILLHOUSE_PLUGINS")
    config_file.write_text('disable_plugins = ["plug-one"]')
    assert refusal()[0] == f"{subject}disable_plugins in {config_file}"


def test_disabling_a_plugin_hides_its_problems(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install_llm("broken", "Not Allowed", "broken_module")
    assert site.info(Registry()).troubles
    monkeypatch.setenv("STILLHOUSE_DISABLE_PLUGINS", "broken")
    info = site.info(Registry())
    assert (info.status, info.troubles) == ("disabled", ())


# A name that several claim

HOOK = """
import stillhouse

@stillhouse.hookimpl
def after_generate(llm): pass
"""


@pytest.fixture
def claimants(site: Any) -> Any:
    site.install_llm("acme-plug", "plug", "acme_module")
    site.install_llm("beta-plug", "plug", "beta_module")
    return site


def test_prefer_switch_resolves_a_name_conflict(claimants: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_PREFER", "plug=Beta_Plug, other=elsewhere")
    registry = Registry()
    first, second = claimants.infos(registry)
    assert (first.package, first.status) == ("acme-plug 1.0", "settled")
    assert (second.package, second.status) == ("beta-plug 1.0", "found")
    assert first.settled_by == "STILLHOUSE_PREFER prefers beta-plug"
    assert first.troubles == second.troubles == ()
    assert second.settled_by == ""
    assert registry.get_llm("plug").__module__ == "beta_module"


def test_the_config_file_may_prefer(claimants: Any, config_file: Path) -> None:
    config_file.write_text('[prefer]\nplug = "acme-plug"\n')
    registry = Registry()
    assert registry.get_llm("plug").__module__ == "acme_module"
    assert claimants.infos(registry)[1].settled_by == f"prefer in {config_file} prefers acme-plug"


def test_settled_conflict_is_no_problem_and_imports_the_preferred_plugin_alone(
    claimants: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimants.install_llm("zeta-plug", "plug", "zeta_module", "raise SystemExit('imported')")
    claimants.install("hook-one", hooks={"watch": "hook_one"}, modules={"hook_one": "raise SystemExit"})
    claimants.install("hook-two", hooks={"watch": "hook_two"}, modules={"hook_two": HOOK})
    monkeypatch.setenv("STILLHOUSE_PREFER", "plug=beta-plug,watch=hook-two")
    registry = Registry()
    checked = {info.package: info for info in registry.check() if info.candidate.location}
    assert {package: info.status for package, info in checked.items()} == {
        "acme-plug 1.0": "settled",
        "beta-plug 1.0": "loaded",
        "zeta-plug 1.0": "settled",
        "hook-one 1.0": "settled",
        "hook-two 1.0": "loaded",
    }
    assert not any(info.troubles for info in checked.values())


def test_preference_that_changes_settles_anew(claimants: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    for preferred, module in (("acme", "acme_module"), ("beta", "beta_module"), ("acme", "acme_module")):
        monkeypatch.setenv("STILLHOUSE_PREFER", f"plug={preferred}-plug")
        assert registry.get_llm("plug").__module__ == module
        states = {info.candidate.distribution[:4]: info.status for info in claimants.infos(registry)}
        assert states == {"acme": "settled", "beta": "settled"} | {preferred: "loaded"}


def test_distribution_preferred_that_claims_the_name_twice(
    claimants: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preference says nothing about which of its two is meant."""
    info = claimants.install("doubled", llms={"plug": "first:LLM"})
    with (info / "entry_points.txt").open("a") as file:
        file.write("plug = second:LLM\n")
    monkeypatch.setenv("STILLHOUSE_PREFER", "plug=doubled")
    infos = claimants.infos(Registry())
    assert [info.status for info in infos] == ["settled", "settled", "found", "conflict"]
    assert infos[3].troubles[0].cause == "doubled 1.0 declares it more than once"


@pytest.mark.parametrize("switch", ["STILLHOUSE_PLUGINS", "STILLHOUSE_DISABLE_PLUGINS"])
def test_disabling_one_claimant_resolves_a_name_conflict(
    claimants: Any, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    monkeypatch.setenv(switch, "acme-plug")
    left = "acme_module" if switch == "STILLHOUSE_PLUGINS" else "beta_module"
    assert Registry().get_llm("plug").__module__ == left


def test_conflict_error_names_all_three_claimants(claimants: Any) -> None:
    claimants.install_llm("zeta-plug", "plug", "zeta_module")
    with pytest.raises(PluginError) as caught:
        Registry().get_llm("plug")
    for name in ("acme-plug", "beta-plug", "zeta-plug"):
        assert f"{name} 1.0" in str(caught.value)
        assert f"STILLHOUSE_PREFER=plug={name}" in caught.value.hint


def test_one_distribution_that_claims_a_name_twice(site: Any) -> None:
    info = site.install("doubled", llms={"plug": "first:LLM"})
    with (info / "entry_points.txt").open("a") as file:
        file.write("plug = second:LLM\n")
    infos = site.infos(Registry())
    assert [[problem.code for problem in info.troubles] for info in infos] == [["E102"], ["E102"]]
    assert infos[0].troubles[0].hint == "ask the authors of doubled to declare the name once"


def test_broken_preferred_plugin_is_reported_every_time(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install_llm("acme-plug", "plug", "acme_module")
    site.install_llm("beta-plug", "plug", "beta_module", "import absent_library")
    monkeypatch.setenv("STILLHOUSE_PREFER", "plug=beta-plug")
    registry = Registry()
    for _ in range(2):
        with pytest.raises(PluginError) as caught:
            registry.get_llm("plug")
        assert (caught.value.code, caught.value.distribution) == ("E201", "beta-plug 1.0")


def test_incompatible_preferred_plugin_is_not_silently_replaced(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install_llm("acme-plug", "plug", "acme_module")
    site.install("beta-plug", llms={"plug": "beta_module:LLM"}, requires=["stillhouse>=99"])
    monkeypatch.setenv("STILLHOUSE_PREFER", "plug=beta-plug")
    with pytest.raises(PluginError) as caught:
        Registry().get_llm("plug")
    assert caught.value.code == "E105"


def test_prefer_switch_cannot_replace_the_built_in(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install_llm("shadow", "echo", "shadow_module")
    monkeypatch.setenv("STILLHOUSE_PREFER", "echo=shadow")
    assert Registry().get_llm("echo").__module__ == "stillhouse.echo"


def test_an_incompatible_claimant_is_ignored(site: Any) -> None:
    site.install_llm("acme-plug", "plug", "acme_module")
    site.install("beta-plug", llms={"plug": "beta_module:LLM"}, requires=["stillhouse>=99"])
    assert Registry().get_llm("plug").__module__ == "acme_module"


# The config file


def test_the_config_file_has_the_same_switches(pair: Any, config_file: Path) -> None:
    config_file.write_text('plugins = ["plug-one", "plug-two"]\ndisable_plugins = ["PLUG_TWO"]\n')
    assert statuses(pair) == {"one": "found", "two": "disabled"}


def test_an_empty_list_in_the_config_file_means_none(pair: Any, config_file: Path) -> None:
    config_file.write_text("plugins = []")
    assert statuses(pair) == {"one": "disabled", "two": "disabled"}


def test_environment_variable_overrides_the_config_file(
    pair: Any, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_file.write_text('plugins = []\ndisable_plugins = ["plug-two"]\n')
    monkeypatch.setenv("STILLHOUSE_PLUGINS", "plug-one,plug-two")
    assert statuses(pair) == {"one": "found", "two": "disabled"}, "each key by itself"
    monkeypatch.setenv("STILLHOUSE_DISABLE_PLUGINS", "")
    assert statuses(pair) == {"one": "found", "two": "found"}


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("plugins = [", "{path} is not valid TOML", "correct or remove {path}"),
        (b"\xff", "{path} is not valid TOML", "correct or remove {path}"),
        (
            'disable_plugins = "plug-one"',
            "disable_plugins in {path} is not a list of names",
            'write it as disable_plugins = ["stillhouse-openai"]',
        ),
        ("plugins = [1]", "plugins in {path} is not a list of names", ""),
        (
            'prefer = "plug"',
            "prefer in {path} has 'plug', which is not NAME=DISTRIBUTION",
            "openai=acme-openai",
        ),
    ],
)
def test_a_config_file_that_cannot_be_read_is_named(
    config_file: Path, content: str | bytes, message: str, hint: str
) -> None:
    config_file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError) as caught:
        Registry().plugins()
    assert message.format(path=config_file) in caught.value.message
    assert hint.format(path=config_file) in caught.value.hint


def test_a_preference_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_PREFER", "openai=acme,broken")
    with pytest.raises(ConfigurationError, match="STILLHOUSE_PREFER has 'broken'"):
        Registry().plugins()


def test_no_file_of_the_project_folder_is_read(tmp_path: Path) -> None:
    """The real `config_file`, in a process that stands in somebody else's project."""
    project = tmp_path / "project"
    for name in ("config.toml", "stillhouse.toml", ".stillhouse/config.toml", "stillhouse/config.toml"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("plugins = [")
    (project / "pyproject.toml").write_text('[tool.stillhouse]\nplugins = ["x"]\n')
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "from stillhouse.registry.policy import Policy, config_file\n"
        "policy = Policy.read()\n"
        "assert policy.allow is None, policy\n"
        "print(config_file())"
    )
    variables = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "APPDATA": str(home)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STILLHOUSE_")}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    path = Path(result.stdout.strip())
    assert path.name == "config.toml"
    assert path.is_relative_to(home)
    assert not path.is_relative_to(project)


# What reading them costs


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the config file was read, and a candidate checked."""
    counted: Counter[str] = Counter()

    def count(target: str, what: str) -> None:
        module, _, name = target.rpartition(".")
        original = getattr(importlib.import_module(module), name)

        def counting(*arguments: Any) -> Any:
            counted[what] += 1
            return original(*arguments)

        monkeypatch.setattr(target, counting)

    count("stillhouse.registry.policy._read_file", "read")
    count("stillhouse.registry.assessment.static_problems", "checked")
    return counted


CALLS = {
    "create": lambda registry: registry.create("one:m"),
    "get_llm": lambda registry: registry.get_llm("one"),
    "available_llms": lambda registry: registry.available_llms(),
    "plugins": lambda registry: registry.plugins(),
    "warnings": lambda registry: registry.warnings(),
    "check": lambda registry: registry.check(["one"]),
    "name_of": lambda registry: registry.name_of(type(registry.create("one"))),
    "hooks": lambda registry: registry.hooks(),
}


@pytest.mark.parametrize("name", CALLS)
def test_unchanged_switches_are_parsed_once_and_candidates_checked_once(
    pair: Any, config_file: Path, counts: Counter[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("stillhouse.registry.policy._MIN_AGE_SECONDS", 0)
    config_file.write_text('disable_plugins = ["plug-two"]')
    monkeypatch.setenv("STILLHOUSE_PREFER", "one=plug-one")
    time.sleep(0.05)  # a file is not older than itself
    registry = Registry()
    CALLS[name](registry)
    assert counts["read"] == 1
    checked = counts["checked"]
    assert 1 <= checked <= len(registry.plugins())
    CALLS[name](registry)
    assert counts == {"read": 1, "checked": checked}


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("name_of", "hooks")])
def test_recently_changed_config_file_is_read_once_per_call(
    pair: Any, config_file: Path, counts: Counter[str], name: str
) -> None:
    config_file.write_text('disable_plugins = ["plug-two"]')
    registry = Registry()
    for calls in (1, 2, 3):
        CALLS[name](registry)
        assert counts["read"] == calls
    assert counts["checked"] <= len(registry.plugins()), "the switches are the same"


def test_config_file_change_applies_at_the_next_call(
    pair: Any, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()

    def disabled() -> set[str]:
        return {name for name, status in statuses(pair, registry).items() if status == "disabled"}

    assert disabled() == set()
    config_file.write_text('disable_plugins = ["plug-one"]')
    assert disabled() == {"one"}
    config_file.write_text('disable_plugins = ["plug-two"]')  # of the same length, in the same moment
    assert disabled() == {"two"}
    monkeypatch.setattr("stillhouse.registry.policy._MIN_AGE_SECONDS", 0)
    time.sleep(0.05)
    assert disabled() == {"two"}
    before = config_file.stat()
    other = config_file.with_name("other.toml")
    other.write_text('disable_plugins = ["plug-one"]')
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(config_file)  # as an editor writes it, and with the time of the one before
    assert disabled() == {"one"}
    config_file.unlink()
    assert disabled() == set()
    config_file.write_text("disable_plugins = 7")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="is not a list of names"):
            registry.plugins()


# What nothing installed is named like


def test_an_unknown_name_in_a_list_is_a_warning(
    pair: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, config_file: Path
) -> None:
    monkeypatch.setenv("STILLHOUSE_PLUGINS", "plug-one,plug-twoo")
    monkeypatch.setenv("STILLHOUSE_PREFER", "oen=plug-one")
    config_file.write_text('disable_plugins = ["zzz"]')
    registry = Registry()
    missing = "but no package of that name with a plugin is installed; "
    warnings = registry.warnings()
    assert (
        warnings[0]
        == f"STILLHOUSE_PLUGINS names 'plug-twoo', {missing}did you mean 'plug-two' or 'plug-one'?"
    )
    assert warnings[1].startswith(f"disable_plugins in {config_file} names 'zzz', {missing}available: ")
    assert (
        warnings[2] == "STILLHOUSE_PREFER chooses who brings 'oen', but no package does; did you mean 'one'?"
    )
    with caplog.at_level(logging.WARNING, "stillhouse.registry"):
        registry.get_llm("one")
        registry.get_llm("one")
    assert [record.message for record in caplog.records] == warnings, "once, where a name is asked for"


def test_an_unknown_key_of_the_config_file_is_a_warning(config_file: Path) -> None:
    config_file.write_text('disabled_plugins = ["plug-one"]\n')
    assert Registry().warnings() == [
        f"{config_file} has the unknown key 'disabled_plugins'; did you mean 'disable_plugins' or 'plugins'?"
    ]


def test_explicit_policy_replaces_the_switches(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_PLUGINS", "")
    registry = Registry(policy=Policy(deny=frozenset({"plug-one"})))
    assert statuses(pair, registry) == {"one": "disabled", "two": "found"}


def test_reading_the_policy_costs_no_pydantic() -> None:
    importlib.import_module("stillhouse.registry.policy")
    code = "import sys, stillhouse.registry.policy as p; p.Policy.read(); sys.exit('pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
