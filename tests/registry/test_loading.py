"""Importing a plugin: how failures are reported, and which exceptions are raised."""

from __future__ import annotations

import itertools
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from stillhouse import PluginError
from stillhouse.registry import Problem, Registry


def problem_of(
    site: Any, source: str, requires: tuple[str, ...] = (), value: str = "plug_module:FakeLLM"
) -> Problem:
    """What is wrong with a plugin whose module has this source."""
    site.install("plug", llms={"plug": value}, requires=requires, modules={"plug_module": source})
    registry = Registry()
    with pytest.raises(PluginError):
        registry.get_llm("plug")
    (problem,) = site.info(registry).troubles
    return problem


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("raise ValueError('no good')", "ValueError: no good (plug_module.py:1)"),
        ("raise SystemExit", "SystemExit (plug_module.py:1)"),
        ("raise SystemExit('bye')", "SystemExit: bye (plug_module.py:1)"),
        ("def broken(:\n", "SyntaxError: invalid syntax (plug_module.py:1)"),
        ("x = 1\n  y = 2\n", "IndentationError: unexpected indent (plug_module.py:2)"),
        ("assert False", "AssertionError (plug_module.py:1)"),
        (
            "raise ImportError('\\n\\nThe C extension\\nfailed for a long reason')",
            "ImportError: The C extension (plug_module.py:1)",
        ),
    ],
)
def test_the_cause_of_a_failed_import(site: Any, source: str, cause: str) -> None:
    problem = problem_of(site, source)
    assert (problem.code, problem.cause) == ("E201", cause)
    assert problem.hint == "stillhouse install --upgrade plug"
    assert cause.partition(":")[0].partition(" ")[0] in problem.traceback


def test_import_problem_names_the_line_that_raised(site: Any) -> None:
    helper = "\n\ndef fail():\n    raise OSError('deep down')\n"
    (site.folder / "helper_module.py").write_text(helper)
    problem = problem_of(site, "import helper_module\nhelper_module.fail()\n")
    assert problem.cause == "OSError: deep down (helper_module.py:4)"


def test_pydantic_error_is_located_in_the_plugin(site: Any) -> None:
    source = "import stillhouse\n\n\nclass FakeLLM(stillhouse.LLM):\n    model_name = 'x'\n"
    problem = problem_of(site, source)
    assert problem.cause.startswith("PydanticUserError: A non-annotated attribute was detected")
    assert problem.cause.endswith("(plug_module.py:4)")


def test_keyboard_interrupt_while_importing_is_raised_and_not_cached(site: Any) -> None:
    source = "import sys\nif not hasattr(sys, 'stillhouse_test'):\n    import signal\n    signal.raise_signal(signal.SIGINT)\n"
    source += "import stillhouse\nFakeLLM = stillhouse.EchoLLM\n"
    site.install_llm("plug", "plug", "plug_module", source)
    registry = Registry()
    with pytest.raises(KeyboardInterrupt):
        registry.get_llm("plug")
    assert site.info(registry).status == "found"
    sys.stillhouse_test = True  # type: ignore[attr-defined]
    try:
        assert registry.get_llm("plug").__name__ == "EchoLLM"
    finally:
        del sys.stillhouse_test  # type: ignore[attr-defined]


def test_a_keyboard_interrupt_goes_through_a_check(site: Any) -> None:
    site.install_llm("plug", "plug", "plug_module", "import signal\nsignal.raise_signal(signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        Registry().check()


# What brings a missing module


@pytest.mark.parametrize(
    ("missing", "requires", "hint"),
    [
        pytest.param(
            "absent_library.sub",
            ["aiohttp", "Absent.Library[speed]>=2 ; extra == 'fast'"],
            'stillhouse install "plug[fast]"',
            id="an extra of the plugin",
        ),
        pytest.param(
            "absent_library",
            ["absent-library>=1,<2"],
            "stillhouse install --upgrade plug",
            id="a requirement",
        ),
        pytest.param(
            "absent_library",
            ["absent-library; extra == 'all'", "absent-library>=1"],
            "stillhouse install --upgrade plug",
            id="a requirement and an extra",
        ),
        pytest.param(
            "absent_library",
            ["aiohttp"],
            "install the package that brings the module absent_library, often of the same name; "
            "plug does not say which",
            id="a stranger, whom we do not guess",
        ),
        pytest.param("psutil", [], 'stillhouse install "stillhouse[cuda]"', id="an extra of the core"),
        pytest.param(
            "stillhouse.absent",
            ["stillhouse"],
            "stillhouse install --upgrade stillhouse plug",
            id="a newer core",
        ),
        pytest.param(
            "plug_module.absent",
            [],
            "pip install --force-reinstall plug; a file of it is missing",
            id="a file of the plugin itself",
        ),
    ],
)
def test_missing_module_hint_names_the_package_to_install(
    site: Any, monkeypatch: pytest.MonkeyPatch, missing: str, requires: list[str], hint: str
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)  # it may be installed here
    problem = problem_of(site, f"import {missing}\n", tuple(requires))
    assert problem.code == "E201"
    assert problem.hint == hint
    assert problem.cause.endswith("(plug_module.py:1)")


def test_missing_core_name_suggests_upgrading_the_core(site: Any) -> None:
    problem = problem_of(site, "from stillhouse import FutureLLM\n")
    assert problem.cause.startswith("ImportError: cannot import name 'FutureLLM' from 'stillhouse'")
    assert problem.hint == "stillhouse install --upgrade stillhouse plug"


def test_a_plugin_whose_module_is_gone(site: Any) -> None:
    problem = problem_of(site, "", value="gone_module:FakeLLM")
    assert problem.code == "E201"
    assert problem.cause == "ModuleNotFoundError: No module named 'gone_module'"
    assert problem.hint == "pip install --force-reinstall plug; a file of it is missing"


def test_an_entry_point_that_is_no_reference(site: Any) -> None:
    assert problem_of(site, "", value=":FakeLLM").code == "E201"


def test_a_lazy_attribute_that_fails_is_a_failed_import(site: Any) -> None:
    source = "def __getattr__(name):\n    if name == 'FakeLLM':\n        import absent_library\n    raise AttributeError\n"
    problem = problem_of(site, source)
    assert problem.code == "E201"
    assert problem.cause == "ModuleNotFoundError: No module named 'absent_library' (plug_module.py:3)"


# Slow imports


def test_a_slow_import_is_a_warning_and_no_more(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install_llm("plug", "plug", "plug_module")
    ticks = itertools.count(0, 0.6)
    monkeypatch.setattr("stillhouse.registry.loading.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    registry = Registry()
    assert registry.get_llm("plug").__name__ == "FakeLLM"
    info = site.info(registry)
    assert (info.status, [problem.code for problem in info.troubles]) == ("loaded", ["W208"])
    assert info.troubles[0].severity == "warning"
    registry.get_llm("echo")
    assert not registry.check(["echo"])[0].troubles, "the core itself is not warned of"


def test_a_fast_import_is_no_warning(site: Any) -> None:
    site.install_llm("plug", "plug", "plug_module")
    registry = Registry()
    registry.get_llm("plug")
    assert site.info(registry).troubles == ()


def test_a_plugin_does_not_answer_for_what_the_core_imports(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`import stillhouse.llm` imports pydantic; a clock that only that advances stays where it is."""
    import subprocess

    site.install_llm("plug", "plug", "plug_module")
    code = f"""
import sys
sys.path.insert(0, {str(site.folder)!r})
from types import SimpleNamespace
import stillhouse.registry.loading as loading
seen = []
loading.time = SimpleNamespace(perf_counter=lambda: seen.append("stillhouse.async_llm" in sys.modules) or 0.0)
from stillhouse.registry import Registry
Registry().get_llm("plug")
sys.exit(0 if seen == [True, True] else f"the core was imported while the clock ran: {{seen}}")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
