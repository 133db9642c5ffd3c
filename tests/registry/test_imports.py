"""What is imported when, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import pytest

HEAVY = ["pydantic", "pydantic_core", "pluggy", "packaging", "jinja2", "yaml", "rich", "typer", "asyncio"]


def modules_after(code: str, *folders: str) -> set[str]:
    """The modules in `sys.modules` after running the code in a new process."""
    program = (
        f"import sys\nsys.path[:0] = {list(folders)!r}\n{textwrap.dedent(code)}\nprint('|', *sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.rpartition("|")[2].split())


def test_importing_stillhouse_imports_nothing_else() -> None:
    modules = modules_after("import stillhouse")
    assert {name for name in modules if name.partition(".")[0] == "stillhouse"} == {
        "stillhouse", "stillhouse._defaults", "stillhouse._deprecated", "stillhouse._lazy",
    }  # fmt: skip
    assert not modules & {*HEAVY, "importlib_metadata", "importlib.metadata"}


def test_importing_everything_public_discovers_nothing(site: Any) -> None:
    site.install_llm("plug", "plug", "plug_module", "raise SystemExit('imported')")
    code = """
        import importlib_metadata
        def refuse(**kwargs): raise SystemExit("discovered")
        importlib_metadata.distributions = refuse
        import stillhouse
        for name in stillhouse.__all__: getattr(stillhouse, name)
    """
    assert "plug_module" not in modules_after(code, str(site.folder))


@pytest.mark.parametrize(
    "call",
    ["available_llms()", "default_registry().plugins()", "default_registry().warnings()"],
)
def test_listing_imports_no_plugin_and_nothing_heavy(site: Any, call: str) -> None:
    requires = ["stillhouse>=0.0.1,<99", "aiohttp", 'stillhouse[http]>=0.0.1,<99; extra == "http"']
    for name in ("one", "two"):
        site.install(
            name,
            llms={name: f"{name}_module:LLM"},
            requires=requires,
            modules={f"{name}_module": "raise SystemExit('imported')"},
        )
    site.install("hooked", hooks={"hooked": "hooked_module"}, modules={"hooked_module": "raise SystemExit"})
    modules = modules_after(f"import stillhouse\nassert stillhouse.{call} is not None", str(site.folder))
    assert not modules & {*HEAVY, "one_module", "two_module", "hooked_module", "stillhouse.llm"}
    assert {name for name in modules if name.startswith("stillhouse.registry.")} == {
        f"stillhouse.registry.{name}"
        for name in (
            "assessment",
            "candidates",
            "discovery",
            "info",
            "known",
            "loading",
            "policy",
            "problems",
            "registry",
            "rules",
        )
    }


def test_loading_one_plugin_imports_no_other(site: Any) -> None:
    site.install_llm("one", "one", "one_module")
    site.install_llm("two", "two", "two_module", "raise SystemExit('imported')")
    modules = modules_after("import stillhouse\nstillhouse.get_llm('one')", str(site.folder))
    assert "one_module" in modules
    assert "two_module" not in modules


def test_unusual_version_range_is_evaluated_by_packaging(site: Any) -> None:
    """Only there is it worth its import; what it says is what counts."""
    for name, requirement in {
        "compatible": "stillhouse~=0.0",
        "excluding": "stillhouse!=99.0",
        "epoch": "stillhouse>=1!0",
        "marked": 'stillhouse>=99; python_version < "3"',
        "lower": "stillhouse (>=0.0.1)",
        "unreadable": "stillhouse >>= 3",
        "of-an-extra": 'stillhouse>=99; extra == "all"',
        "neighbour": "stillhouse-other>=99",
    }.items():
        site.install(name, llms={name: "nowhere:LLM"}, requires=[requirement])
    from stillhouse.registry import Registry

    assert [info.name for info in site.infos(Registry()) if info.troubles] == ["epoch"]


@pytest.mark.parametrize(
    ("version", "requirement", "is_met"),
    [
        ("0.1.0", "stillhouse>=0.1", True),
        ("0.1", "stillhouse>=0.1.0,<0.2", True),
        ("0.2.0", "stillhouse>=0.1,<0.2", False),
        ("0.10", "stillhouse>=0.9", True),
        ("0.9", "stillhouse>=0.10", False),
        ("1.0", "stillhouse<1", False),
        ("1", "stillhouse<1.0", False),
        ("1", "stillhouse>=1.0", True),
        ("1.0rc1", "stillhouse>=0.9,<1.0", False),
        ("1.0rc1", "stillhouse>=0.9", True),
        ("0.2.dev1", "stillhouse>=0.1", True),
        ("0.1.0+local", "stillhouse==0.1.0", True),
        ("0.1.0", "Stillhouse[http] >= 0.1 , < 1", True),
        ("0.1.0", "stillhouse", True),
        ("0.1.0", "stillhouse==0.1.*", True),
        ("", "stillhouse>=99", True),
        ("0.1", "stillhouse>=99; extra == 'all'", True),
        ("0.1", "stillhouse>=99; extra == 'all' or python_version > '3'", False),
        ("0.1", "stillhouse>=99; extra == ''", False),
    ],
)
def test_version_range_is_checked_against_the_core_version(
    version: str, requirement: str, is_met: bool
) -> None:
    from stillhouse.registry.candidates import Candidate
    from stillhouse.registry.rules import static_problems

    candidate = Candidate("plug", "m:C", "stillhouse.llms", "plug", "1.0", requires=(requirement,))
    codes = [problem.code for problem in static_problems(candidate, version)]
    assert codes == ([] if is_met else ["E105"])


@pytest.mark.parametrize(
    ("version", "requirements", "remedy"),
    [
        ("0.1.0", ["stillhouse>=0.7,<0.8"], '"stillhouse>=0.7,<0.8"'),
        ("0.1.0", ["stillhouse<0.8,>=0.7"], '"stillhouse>=0.7,<0.8"'),
        ("0.1.0", ["stillhouse[http,schema] (>=0.7)"], '"stillhouse[http,schema]>=0.7"'),
        ("0.1.0", ["stillhouse~=0.7"], '"stillhouse~=0.7"'),
        ("0.1.0", ["stillhouse==0.7.*"], '"stillhouse==0.7.*"'),
        ("0.1.0", ["stillhouse>0.1.0"], '"stillhouse>0.1.0"'),
        ("0.1.0", ["stillhouse!=0.1.0"], '"stillhouse!=0.1.0"'),
        ("0.1.0", ["stillhouse>=0.1", "stillhouse[http]>=0.7"], '"stillhouse[http]>=0.7"'),
        ("1.0rc1", ["stillhouse>=1.0"], '"stillhouse>=1.0"'),
        ("0.9.0", ["stillhouse>=0.7,<0.8"], "plug"),
        ("0.9.0", ["stillhouse<0.8"], "plug"),
        ("0.9.0", ["stillhouse~=0.7.1"], "plug"),
        ("0.9.0", ["stillhouse==0.7.*"], "plug"),
        ("0.9.0", ["stillhouse===0.7-odd"], "plug"),
        ("0.9.0", ["stillhouse!=0.9.0,<0.8"], "plug"),
    ],
)
def test_remedy_for_a_range_upgrades_whichever_is_too_old(
    version: str, requirements: list[str], remedy: str
) -> None:
    from stillhouse.registry.candidates import Candidate
    from stillhouse.registry.rules import static_problems

    candidate = Candidate("plug", "m:C", "stillhouse.llms", "plug", "1.0", requires=tuple(requirements))
    (problem,) = static_problems(candidate, version)
    assert problem.code == "E105"
    assert problem.hint == f"stillhouse install --upgrade {remedy}"


def test_the_old_name_of_a_problem_warns() -> None:
    import stillhouse.registry
    from stillhouse._deprecated import StillhouseDeprecationWarning

    message = "stillhouse.registry.Trouble is Problem since stillhouse 0.1; the old name goes away in 0.3"
    with pytest.warns(StillhouseDeprecationWarning, match=message) as caught:
        assert stillhouse.registry.Trouble is stillhouse.registry.Problem
    assert caught[0].filename == __file__
    with pytest.raises(AttributeError, match="has no attribute 'Toruble'"):
        stillhouse.registry.Toruble  # type: ignore[attr-defined]  # noqa: B018


def test_table_of_what_could_be_installed_is_read_when_it_is_asked_for() -> None:
    listing = """
        import sys
        from stillhouse.cli.app import app
        try: app(["list"{}], prog_name="stillhouse")
        except SystemExit: pass
    """
    added = {"stillhouse.registry.available", "tomllib"}
    assert not modules_after(listing.format("")) & added
    assert modules_after(listing.format(", '--available'")) >= added
