"""The registry: states, the class behind a name, creating, registering, refreshing."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import importlib_metadata
import pytest

import stillhouse
from stillhouse import (
    ConfigurationError,
    EchoLLM,
    PluginError,
    UnknownLLMError,
    available_llms,
    create,
    default_registry,
    get_llm,
)
from stillhouse.registry import Registry
from stillhouse.registry.known import PACKAGES


def given(name: str, value: str, group: str = "stillhouse.llms") -> importlib_metadata.EntryPoint:
    return importlib_metadata.EntryPoint(name, value, group)


# States


def test_the_states_of_a_healthy_plugin(site: Any) -> None:
    site.install_llm("plug", "plug", "plug_module")
    registry = Registry()
    assert site.info(registry).status == "found"
    assert "plug_module" not in sys.modules
    cls = registry.get_llm("plug")
    assert site.info(registry).status == "loaded"
    assert registry.get_llm("plug") is cls
    registry.refresh()
    assert site.info(registry).status == "found"


def test_the_states_of_the_built_in_echo() -> None:
    registry = Registry(entry_points=[])
    (info,) = registry.available_llms()
    assert (info.name, info.status, info.summary) == ("echo", "built-in", "Answers with its input; no model")
    assert info.package == f"stillhouse {stillhouse.__version__}"
    assert registry.get_llm("echo") is EchoLLM
    assert registry.available_llms()[0].status == "loaded"


def test_a_failed_import_is_tried_once_until_refresh(site: Any) -> None:
    source = "import builtins\nbuiltins.attempts = getattr(builtins, 'attempts', 0) + 1\n1 / 0\n"
    site.install_llm("plug", "plug", "plug_module", source)
    registry = Registry()
    import builtins

    try:
        for _ in range(3):
            with pytest.raises(PluginError, match="ZeroDivisionError"):
                registry.get_llm("plug")
        assert builtins.attempts == 1  # type: ignore[attr-defined]
        assert site.info(registry).status == "failed"
        (site.folder / "plug_module.py").write_text("import stillhouse\nFakeLLM = stillhouse.EchoLLM\n")
        registry.refresh()
        assert registry.get_llm("plug") is EchoLLM
    finally:
        del builtins.attempts  # type: ignore[attr-defined]


def test_check_reports_the_status_of_each_plugin(site: Any) -> None:
    site.install_llm("good", "good", "good_module")
    site.install_llm("bad", "bad", "bad_module", "raise SystemExit(3)")
    registry = Registry()
    registry.check(["good"])
    assert "bad_module" not in sys.modules
    assert {info.name: info.status for info in site.infos(registry)} == {"bad": "found", "good": "loaded"}
    checked = {info.name: info for info in registry.check()}
    assert checked["bad"].status == "failed"
    assert checked["bad"].troubles[0].cause == "SystemExit: 3 (bad_module.py:1)"
    assert checked["bad"].troubles[0].traceback.endswith("SystemExit: 3\n")
    with pytest.raises(UnknownLLMError, match='there is no LLM "goood"'):
        registry.check(["goood"])


# Names that lead nowhere


def test_near_matches_of_an_unknown_name(site: Any) -> None:
    site.install_llm("plug", "my-backend", "plug_module")
    with pytest.raises(UnknownLLMError) as caught:
        Registry().get_llm("my-bakend")
    assert caught.value.message == 'there is no LLM "my-bakend"'
    assert caught.value.hint == "did you mean 'my-backend'?"
    assert caught.value.name == "my-bakend"
    assert "plug_module" not in sys.modules


def test_near_matches_include_broken_plugins(site: Any) -> None:
    site.install("plug", llms={"my-backend": "plug_module:LLM"}, requires=["stillhouse>=99"])
    with pytest.raises(UnknownLLMError, match="did you mean 'my-backend'"):
        Registry().get_llm("my-bakend")


def test_near_matches_exclude_disabled_plugins(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install_llm("plug", "my-backend", "plug_module")
    monkeypatch.setenv("STILLHOUSE_DISABLE_PLUGINS", "plug")
    with pytest.raises(UnknownLLMError) as caught:
        Registry().get_llm("my-bakend")
    assert "my-backend" not in caught.value.hint


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_known_but_uninstalled_llm_names_the_package_to_install(name: str) -> None:
    with pytest.raises(UnknownLLMError) as caught:
        Registry(entry_points=[]).get_llm(name)
    assert caught.value.message == f'the LLM "{name}" is not installed'
    assert caught.value.hint == f"stillhouse install {PACKAGES[name]}"


def test_near_matches_include_known_uninstalled_llms() -> None:
    with pytest.raises(UnknownLLMError, match="did you mean 'llamacpp'"):
        Registry(entry_points=[]).get_llm("llama-cpp")


def test_unknown_llm_name_without_near_match_lists_known_names() -> None:
    with pytest.raises(UnknownLLMError) as caught:
        Registry(entry_points=[given("openai", "m:C", "stillhouse.llms")]).get_llm("zzz")
    assert caught.value.hint == (
        "installed are: echo, openai; `stillhouse list --available` lists what could be"
    )


def test_a_hook_is_no_llm() -> None:
    with pytest.raises(UnknownLLMError, match='"watch" is a hook, not an LLM'):
        Registry(entry_points=[given("watch", "watch_module", "stillhouse.hooks")]).get_llm("watch")


# Creating


def test_create_sets_fields_and_the_model(site: Any) -> None:
    site.install_llm("plug", "plug", "plug_module")
    registry = Registry()
    assert registry.create("plug").model_name == "fake"
    llm = registry.create("plug:org/model:latest", generation_kwargs={"temperature": 0.5})
    assert llm.model_name == "org/model:latest", "the first colon alone separates"
    assert llm.generation_kwargs == {"temperature": 0.5}
    assert not llm.is_loaded
    assert llm.registry is registry


def test_create_without_a_model_to_choose(site: Any) -> None:
    source = """
        import stillhouse

        class FakeLLM(stillhouse.AsyncLLM):
            @property
            def model_name(self):
                return "one"

            async def agenerate(self, input, num_generations=1):
                return {}
    """
    site.install_llm("plug", "plug", "plug_module", source)
    with pytest.raises(ConfigurationError) as caught:
        Registry().create("plug:other")
    assert str(caught.value) == "plug has no model to choose\n  try  write plug alone"


@pytest.mark.parametrize(
    ("spec", "fields", "message", "hint"),
    [
        ("echo:", {}, "'echo:' names no model after the colon", "write echo:MODEL"),
        ("echo:a", {"model": "b"}, "the model is given twice, in 'echo:a' and as model='b'", "give it once"),
        ("echo", {"latenci": 1}, "echo: there is no 'latenci'", "did you mean 'latency'?"),
        ("echo", {"latency": "long"}, "echo: latency: must be a number", ""),
    ],
)
def test_create_with_a_wrong_spec_or_field(
    spec: str, fields: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Registry(entry_points=[]).create(spec, **fields)
    assert caught.value.message.startswith(message)
    assert caught.value.hint == hint


# Registering


class Registered(EchoLLM):
    """A class of this file.

    With more about it.
    """


def test_registered_class_wins_over_plugins_and_survives_refresh() -> None:
    registry = Registry(entry_points=[given("mine", "nowhere:LLM")])
    registry.register("mine", Registered)
    registry.register("echo", Registered)
    assert registry.get_llm("mine") is registry.get_llm("echo") is Registered
    registry.refresh()
    assert registry.get_llm("mine") is Registered
    info = next(info for info in registry.available_llms() if info.status == "loaded")
    assert (info.name, info.summary, info.package) == ("echo", "A class of this file.", "")


@pytest.mark.parametrize(
    ("name", "cls", "code"),
    [("Bad_Name", Registered, "E101"), ("good", int, "E203"), ("good", stillhouse.AsyncLLM, "E204")],
)
def test_register_refuses_an_invalid_name_or_class(name: str, cls: Any, code: str) -> None:
    registry = Registry(entry_points=[])
    with pytest.raises(PluginError) as caught:
        registry.register(name, cls)
    assert caught.value.code == code
    assert "else stillhouse install" not in str(caught.value), "it came from no package"
    with pytest.raises(UnknownLLMError):
        registry.get_llm(name)


def test_the_name_of_a_class(site: Any) -> None:
    site.install_llm("plug", "plug", "plug_module")
    site.install_llm("other", "other", "other_module")
    registry = Registry()
    cls = registry.get_llm("plug")
    assert registry.name_of(cls) == "plug"
    assert registry.name_of(EchoLLM) == "echo"
    assert "other_module" not in sys.modules, "no other package is imported to find out"
    with pytest.raises(ConfigurationError, match="Registered is not a registered backend"):
        registry.name_of(Registered)
    registry.register("mine", Registered)
    assert registry.name_of(Registered) == "mine"


def test_registries_are_independent() -> None:
    one, two = Registry(entry_points=[]), Registry(entry_points=[])
    one.register("mine", Registered)
    assert one.get_llm("mine") is Registered
    for other in (two, default_registry()):
        with pytest.raises(UnknownLLMError):
            other.get_llm("mine")


def test_module_functions_use_the_default_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(entry_points=[])
    registry.register("mine", Registered)
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)
    assert default_registry() is registry
    assert get_llm("mine") is Registered
    assert isinstance(create("mine"), Registered)
    assert [info.name for info in available_llms()] == ["echo", "mine"]


# Importing


def in_four_threads(ask: Callable[[], object]) -> None:
    """Call it in four threads that start at once."""
    start = threading.Barrier(4)

    def body() -> None:
        start.wait()
        ask()

    threads = [threading.Thread(target=body) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("outcome", ["FakeLLM = stillhouse.EchoLLM", "raise ImportError"])
def test_four_threads_make_one_import(site: Any, monkeypatch: pytest.MonkeyPatch, outcome: str) -> None:
    # It takes long enough for the other threads to come in. Python itself holds them back from a
    # second import of a module that succeeds, and not of one that fails.
    source = f"""
        import threading
        import time

        import stillhouse

        threading.stillhouse_test_imports += 1
        time.sleep(0.1)
        {outcome}
    """
    monkeypatch.setattr(threading, "stillhouse_test_imports", 0, raising=False)
    site.install_llm("plug", "plug", "plug_module", source)
    registry = Registry()
    results: list[Any] = []

    def ask() -> None:
        try:
            results.append(registry.get_llm("plug"))
        except PluginError as error:
            results.append(error.code)

    in_four_threads(ask)
    assert results == ["E201" if outcome.startswith("raise") else EchoLLM] * 4
    assert threading.stillhouse_test_imports == 1  # type: ignore[attr-defined]


def test_four_threads_make_one_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    scans = []
    distributions = importlib_metadata.distributions

    def slowly() -> Any:
        scans.append(1)
        time.sleep(0.05)
        return distributions()

    monkeypatch.setattr(importlib_metadata, "distributions", slowly)
    registry = Registry()
    in_four_threads(registry.plugins)
    assert len(scans) == 1
