"""Hooks: taken in only if they fit, called one by one, and never in the way of generating."""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import stillhouse
from stillhouse import GenerationError, PluginError, hookimpl
from stillhouse.registry import Registry

HOOK = """
import stillhouse

@stillhouse.hookimpl
def {signature}:
    {body}
"""


def hook_module(signature: str, body: str = "return None") -> str:
    return HOOK.format(signature=signature, body=body)


def generate(registry: Registry, *inputs: str, n: int = 1, **fields: Any) -> list[Any]:
    """What echo answers, an error in the place of a failed input."""
    with registry.create("echo", **fields) as llm:
        return [result for _, result in llm.iter_outputs(inputs, n, on_error="yield")]


@pytest.fixture
def registry() -> Registry:
    return Registry(entry_points=[])


def answer(*generations: str) -> Any:
    return {"generations": list(generations), "statistics": {}}


# What does not fit (E206)


class NotMarked:
    def before_generate(self, llm: Any) -> None: ...


class Surplus:
    @hookimpl
    def after_generate(self, llm: Any, outputs: Any) -> None: ...


class Typo:
    @hookimpl
    def after_generat(self, llm: Any) -> None: ...


class Coroutine:
    @hookimpl
    async def after_generate(self, llm: Any) -> None: ...


class ByKeyword:
    @hookimpl
    def after_generate(self, *, llm: Any) -> None: ...


class Misnamed:
    @hookimpl
    def open_writer(self, output: str) -> Any: ...


class Wrapper:
    @hookimpl(wrapper=True)
    def after_generate(self, llm: Any) -> Any:
        return (yield)


class SomethingElse:
    @hookimpl
    def before_generate(self, llm: Any) -> None: ...

    @hookimpl
    def zzz(self) -> None: ...


class Raising:
    @property
    def broken(self) -> None:
        raise RuntimeError("not now")

    @hookimpl
    def after_generate(self, llm: Any) -> None: ...


CALL = "llm, input, num_generations, arguments"
BEFORE = f"{CALL}, row"
AFTER = f"{CALL}, output, error, from_hook, row, seconds"


@pytest.mark.parametrize(
    ("plugin", "cause", "hint"),
    [
        (
            NotMarked(),
            "no function in it is marked with stillhouse.hookimpl",
            "mark its hooks with @stillhouse.hookimpl",
        ),
        (
            Surplus(),
            f"after_generate takes outputs, but the hook has only {AFTER}",
            "take outputs out of its arguments",
        ),
        (
            Misnamed(),
            "open_writer takes output, but the hook has only target, schema, columns",
            "take output out of its arguments",
        ),
        (Typo(), "there is no hook after_generat", "rename it to after_generate"),
        (
            SomethingElse(),
            "there is no hook zzz",
            "rename it to after_generate or before_generate or configure or make_executor or open_reader or open_writer or output_path "
            "or run_finished or run_started or settings_model",
        ),
        (
            Coroutine(),
            "after_generate is a coroutine, but hooks are plain functions",
            "write it as def, not async def",
        ),
        (
            ByKeyword(),
            "after_generate takes llm by keyword, but hooks are called by place",
            "take the * out of its arguments",
        ),
        (Wrapper(), "after_generate wraps the hooks of other plugins", "write it as a plain function"),
        (
            Surplus,
            "it is the class Surplus, whose hooks would be called without self",
            "let the entry point name an instance or a module",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hook_that_does_not_fit(registry: Registry, plugin: Any, cause: str, hint: str) -> None:
    with pytest.raises(PluginError) as caught:
        registry.register_hooks("bad", plugin)
    assert caught.value.code == "E206"
    assert f"cause        {cause}" in str(caught.value)
    assert caught.value.hint == hint
    assert registry.hooks().empty, "nothing of it stays registered"
    registry.register_hooks("bad", Recorder())
    generate(registry, "a")


def test_error_names_the_line_of_a_wrong_hook_signature(site: Any) -> None:
    site.install(
        "plug", hooks={"plug": "plug_module"}, modules={"plug_module": hook_module("before_generate(model)")}
    )
    registry = Registry()
    registry.check()
    problem = site.info(registry).troubles[0]
    assert problem.cause == f"before_generate takes model, but the hook has only {BEFORE} (plug_module.py:5)"
    assert problem.hint.endswith("if it is yours; else stillhouse install --upgrade plug")


def test_unknown_optional_hook_is_ignored(registry: Registry) -> None:
    class Modern:
        seen = 0

        @hookimpl(optionalhook=True)
        def in_some_later_version(self) -> None: ...

        @hookimpl
        def after_generate(self) -> None:
            Modern.seen += 1

    registry.register_hooks("modern", Modern())
    generate(registry, "a")
    assert Modern.seen == 1


def test_a_hook_may_have_another_name(registry: Registry) -> None:
    class Renamed:
        @hookimpl(specname="before_generate")
        def mine(self, input: Any) -> Any:
            return answer("from the hook")

    registry.register_hooks("renamed", Renamed())
    assert generate(registry, "a")[0]["generations"] == ["from the hook"]


def test_hooks_object_is_registered_once(registry: Registry) -> None:
    recorder = Recorder()
    registry.register_hooks("recorder", recorder)
    for name, plugin in (("recorder", Recorder()), ("again", recorder)):
        with pytest.raises(PluginError, match="has been taken in already"):
            registry.register_hooks(name, plugin)
    generate(registry, "a")
    assert len(recorder.seen) == 1, "the first one goes on"


def test_an_object_whose_attributes_raise(registry: Registry) -> None:
    # pluggy looks at every attribute. Some of its versions mind one that raises, some do not.
    with contextlib.suppress(PluginError):
        registry.register_hooks("raising", Raising())
    assert generate(registry, "a")[0]["generations"] == ["a"]


# Calling them


class Recorder:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    @hookimpl
    def after_generate(self, input: Any, output: Any, error: Any, from_hook: bool) -> None:
        self.seen.append((input, output and output["generations"], error and error.kind, from_hook))


class Cache:
    def __init__(self, result: Any) -> None:
        self.result = result
        self.calls = 0

    @hookimpl
    def before_generate(self, llm: Any, input: Any, num_generations: int, arguments: Any) -> Any:
        self.calls += 1
        return self.result


def test_observer_hooks_see_every_input_and_its_result(registry: Registry) -> None:
    recorder = Recorder()
    registry.register_hooks("recorder", recorder)
    generate(registry, "a", "b")
    assert recorder.seen == [("a", ["a"], None, False), ("b", ["b"], None, False)]
    recorder.seen.clear()
    (failed,) = generate(registry, "a", failure_rate=1.0, failure_kind="timeout")
    assert isinstance(failed, GenerationError)
    assert recorder.seen == [("a", None, "timeout", False)]
    registry.unregister_hooks("recorder")
    generate(registry, "a")
    assert len(recorder.seen) == 1


def test_first_hook_answer_wins_and_observers_are_informed(registry: Registry) -> None:
    first, second, recorder = Cache(answer("cached")), Cache(answer("never")), Recorder()
    registry.register_hooks("second", second)
    registry.register_hooks("first", first)  # the last one registered is asked first, as in pluggy
    registry.register_hooks("recorder", recorder)
    assert generate(registry, "a")[0]["generations"] == ["cached"]
    assert (first.calls, second.calls) == (1, 0)
    assert recorder.seen == [("a", ["cached"], None, True)]


@pytest.mark.parametrize(
    ("result", "complaint"),
    [
        (answer("one"), "the hook plugin cache returned 1 generations where 2 were asked for"),
        ("text", "the hook plugin cache returned str instead of an output"),
        (7, "the hook plugin cache returned int instead of an output"),
        ({}, "the hook plugin cache returned dict instead of an output"),
    ],
)
def test_invalid_hook_answer_is_ignored_with_a_warning(
    registry: Registry, caplog: pytest.LogCaptureFixture, result: Any, complaint: str
) -> None:
    registry.register_hooks("cache", Cache(result))
    assert [output["generations"] for output in generate(registry, "a", "b", n=2)] == [["a"] * 2, ["b"] * 2]
    (record,) = caplog.records
    assert complaint in record.getMessage()


def test_raising_hook_is_reported_once_and_does_not_stop_generation(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty:
        calls = 0

        @hookimpl
        def before_generate(self, input: Any) -> Any:
            Faulty.calls += 1
            raise ConnectionError("no cache server")

        @hookimpl
        def after_generate(self, input: Any) -> None:
            raise KeyError(input)

    cache, recorder = Cache(answer("cached")), Recorder()
    registry.register_hooks("cache", cache)
    registry.register_hooks("recorder", recorder)
    registry.register_hooks("faulty", Faulty())
    outputs = generate(registry, "a", "b", "c")
    assert [output["generations"] for output in outputs] == [["cached"]] * 3, "the next cache is asked"
    assert Faulty.calls == 3
    assert len(recorder.seen) == 3, "the other observers are told"
    before, after = (record.getMessage() for record in caplog.records)
    assert before.startswith("the hook before_generate of the plugin faulty failed")
    assert "ConnectionError: no cache server (" in before
    assert "test_hooks.py:" in before
    assert after.startswith("the hook after_generate of the plugin faulty failed")


def test_an_interrupt_in_a_hook_goes_through(registry: Registry) -> None:
    class Interrupted:
        @hookimpl
        def before_generate(self) -> Any:
            signal.raise_signal(signal.SIGINT)

    registry.register_hooks("interrupted", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        generate(registry, "a")


# Installed ones


def test_installed_hooks_are_imported_when_a_run_starts(site: Any) -> None:
    site.install(
        "plug",
        hooks={"plug": "plug_module"},
        modules={
            "plug_module": hook_module("before_generate()", 'return {"generations": ["h"], "statistics": {}}')
        },
    )
    registry = Registry()
    registry.get_llm("echo")
    assert "plug_module" not in sys.modules
    assert generate(registry, "a")[0]["generations"] == ["h"]
    assert site.info(registry).status == "loaded"


def test_broken_hook_is_reported_and_the_others_still_run(
    site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good = hook_module("before_generate()", 'return {"generations": ["h"], "statistics": {}}')
    site.install("good", hooks={"good": "good_module"}, modules={"good_module": good})
    site.install("import-fails", hooks={"import-fails": "if_module"}, modules={"if_module": "import absent"})
    site.install("misfit", hooks={"misfit": "mf_module"}, modules={"mf_module": hook_module("nothing()")})
    site.install("ancient", hooks={"ancient": "ancient_module"}, requires=["stillhouse<0.0.1"])
    registry = Registry()
    for _ in range(2):
        assert generate(registry, "a")[0]["generations"] == ["h"]
    told = [record.getMessage().partition(" ")[0] for record in caplog.records]
    assert told == ["error[E105]", "error[E201]", "error[E206]"]
    assert {info.name: info.status for info in site.infos(registry)} == {
        "ancient": "incompatible",
        "good": "loaded",
        "import-fails": "failed",
        "misfit": "failed",
    }


def test_check_returns_hook_problems_without_logging_them(
    site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.install("misfit", hooks={"misfit": "mf_module"}, modules={"mf_module": hook_module("nothing()")})
    registry = Registry()
    assert [info.status for info in registry.check(["misfit"])] == ["failed"]
    assert caplog.records == []


def test_second_hook_entry_point_of_the_same_module_is_an_error(site: Any) -> None:
    good = hook_module("before_generate()", 'return {"generations": ["h"], "statistics": {}}')
    site.install("plug", hooks={"one": "plug_module", "two": "plug_module"}, modules={"plug_module": good})
    registry = Registry()
    registry.check()
    one, two = site.infos(registry)
    assert (one.status, one.troubles) == ("loaded", ())
    assert (two.status, two.troubles[0].code) == ("failed", "E206")
    assert generate(registry, "a")[0]["generations"] == ["h"]


def test_an_interrupt_while_hooks_are_imported_loses_none(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    good = hook_module("before_generate()", 'return {"generations": ["h"], "statistics": {}}')
    site.install("a-good", hooks={"a-good": "good_module"}, modules={"good_module": good})
    interrupting = "import signal, sys\nif not hasattr(sys, 'stillhouse_test'):\n    signal.raise_signal(signal.SIGINT)\n"
    site.install("b-bad", hooks={"b-bad": "bad_module"}, modules={"bad_module": interrupting})
    registry = Registry()
    with pytest.raises(KeyboardInterrupt):
        registry.hooks()
    monkeypatch.setattr(sys, "stillhouse_test", True, raising=False)
    assert generate(registry, "a")[0]["generations"] == ["h"]


def test_refresh_keeps_what_was_registered(registry: Registry) -> None:
    recorder = Recorder()
    registry.register_hooks("recorder", recorder)
    registry.refresh()
    generate(registry, "a")
    assert len(recorder.seen) == 1


def test_a_registry_calls_its_own_hooks(registry: Registry) -> None:
    recorder = Recorder()
    registry.register_hooks("recorder", recorder)
    generate(Registry(entry_points=[]), "a")
    assert recorder.seen == []


def test_slow_hook_import_is_reported_with_advice(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(0.0, 0.6)
    monkeypatch.setattr("stillhouse.registry.loading.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    site.install(
        "plug", hooks={"plug": "plug_module"}, modules={"plug_module": hook_module("after_generate(llm)")}
    )
    registry = Registry()
    registry.check()
    (problem,) = site.info(registry).troubles
    assert problem.code == "W208"
    assert problem.hint.startswith("import heavy libraries in the hook that needs them, if it is yours; else")


def test_call_without_hooks_looks_up_no_hook(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    hooks = registry.hooks()
    assert (hooks.before, hooks.after, hooks.empty) == (False, False, True)
    with caplog.at_level(logging.WARNING), stillhouse.create("echo") as llm:
        llm.use_registry(registry)
        for name in ("before_generate", "after_generate"):
            setattr(hooks, name, lambda *arguments: pytest.fail("called"))
        llm.generate_outputs(["a"])
