"""Every code, with the whole report that a user reads."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from types import SimpleNamespace
from typing import Any

import pytest

from stillhouse import PluginError
from stillhouse.registry import CODES, PluginInfo, Registry, Status, problems
from stillhouse.registry.problems import explanation_of

LLM = """
import stillhouse
from typing import Any
from pydantic import SecretStr

class Base(stillhouse.{base}):
    @property
    def model_name(self):
        return "fake"

    async def agenerate(self, input, num_generations=1):
        return {{"generations": ["x"] * num_generations, "statistics": {{}}}}
"""


@dataclass(frozen=True)
class Case:
    """A broken distribution, and what the registry says of it."""

    code: str
    install: Callable[[Any], object]
    status: Status
    report: str

    def __str__(self) -> str:
        return self.code


def e101(site: Any) -> None:
    site.install_llm("bad-name", "Bad_Name", "bad_name")


def e102(site: Any) -> None:
    site.install_llm("first-rival", "contested", "first_rival")


def e103(site: Any) -> None:
    site.install_llm("shadow", "echo", "shadow")


def e104(site: Any) -> None:
    site.install("later", groups={"stillhouse.llms.v2": {"later": "later:FakeLLM"}})


def e105(site: Any) -> None:
    site.install("eager", llms={"eager": "eager:FakeLLM"}, requires=["stillhouse[http]>=99.1,<100"])


def e201(site: Any) -> None:
    site.install(
        "import-fails",
        llms={"import-fails": "import_fails:FakeLLM"},
        requires=['no-such-library>=2; extra == "fast"'],
        modules={"import_fails": "import stillhouse\nimport no_such_library.client\n"},
    )


def e202(site: Any) -> None:
    site.install(
        "no-attribute", llms={"no-attribute": "no_attribute:MyLLM"}, modules={"no_attribute": "MyLLm = 1"}
    )


def e203(site: Any) -> None:
    source = "\nclass Stranger:\n    pass\n"
    site.install("no-llm", llms={"no-llm": "no_llm:Stranger"}, modules={"no_llm": source})


def e204(site: Any) -> None:
    source = """
        import stillhouse

        class Half(stillhouse.LLM):
            @property
            def model_name(self):
                return "x"
    """
    site.install("half", llms={"half": "half:Half"}, modules={"half": source})


def e205(site: Any) -> None:
    source = """
        import stillhouse

        class NoCount(stillhouse.AsyncLLM):
            @property
            def model_name(self):
                return "x"

            async def agenerate(self, input, temperature=1.0):
                return {}
    """
    site.install("no-count", llms={"no-count": "no_count:NoCount"}, modules={"no_count": source})


def e206(site: Any) -> None:
    source = """
        import stillhouse

        @stillhouse.hookimpl
        def before_generat(llm, input):
            return None
    """
    site.install("typo-hook", hooks={"typo-hook": "typo_hook"}, modules={"typo_hook": source})


def e207(site: Any) -> None:
    source = (
        LLM.format(base="AsyncLLM") + "\nclass Leaky(Base):\n    model: str = 'm'\n    api_key: str = ''\n"
    )
    site.install("leaky", llms={"leaky": "leaky:Leaky"}, modules={"leaky": source})


def w106(site: Any) -> None:
    site.install_llm("twice", "twice", "twice")


def w208(site: Any) -> None:
    site.install(
        "slow", llms={"slow": "slow:Slow"}, modules={"slow": LLM.format(base="AsyncLLM") + "Slow = Base"}
    )


CASES = [
    Case(
        "E101",
        e101,
        "failed",
        """\
error[E101] llm "Bad_Name" from bad-name 1.0 has a name that is not allowed
  entry point  stillhouse.llms: Bad_Name = bad_name:FakeLLM
  cause        'Bad_Name' is not small letters, digits and hyphens, the first no hyphen
  try          ask the authors of bad-name for another name""",
    ),
    Case(
        "E102",
        e102,
        "conflict",
        """\
error[E102] llm "contested" from first-rival 1.0 claims a name that another distribution claims too
  entry point  stillhouse.llms: contested = first_rival:FakeLLM
  cause        first-rival 1.0 and second-rival 2.0 declare it
  try          STILLHOUSE_PREFER=contested=first-rival or STILLHOUSE_PREFER=contested=second-rival; \
or pip uninstall what you do not need""",
    ),
    Case(
        "E103",
        e103,
        "conflict",
        """\
error[E103] llm "echo" from shadow 1.0 claims the name of a built-in LLM
  entry point  stillhouse.llms: echo = shadow:FakeLLM
  cause        echo is built into stillhouse, and the built-in one is used
  try          pip uninstall shadow, or ask its authors for another name""",
    ),
    Case(
        "E104",
        e104,
        "incompatible",
        """\
error[E104] llm "later" from later 1.0 is written for another major version of the contract
  entry point  stillhouse.llms.v2: later = later:FakeLLM
  cause        the group stillhouse.llms.v2 is not known to stillhouse {core}, which reads stillhouse.llms
  try          stillhouse install --upgrade stillhouse""",
    ),
    Case(
        "E105",
        e105,
        "incompatible",
        """\
error[E105] llm "eager" from eager 1.0 needs another version of stillhouse
  entry point  stillhouse.llms: eager = eager:FakeLLM
  cause        it requires stillhouse<100,>=99.1, and stillhouse {core} is installed
  try          stillhouse install --upgrade "stillhouse[http]>=99.1,<100\"""",
    ),
    Case(
        "W106",
        w106,
        "found",
        """\
warning[W106] llm "twice" from twice 1.0 is installed twice
  entry point  stillhouse.llms: twice = twice:FakeLLM
  cause        the one in {site} is used; there is also {copy}
  try          delete it if it is a leftover, take its folder off PYTHONPATH, or pip uninstall twice and install it again""",
    ),
    Case(
        "E201",
        e201,
        "failed",
        """\
error[E201] llm "import-fails" from import-fails 1.0 could not be imported
  entry point  stillhouse.llms: import-fails = import_fails:FakeLLM
  cause        ModuleNotFoundError: No module named 'no_such_library' (import_fails.py:2)
  try          stillhouse install "import-fails[fast]"
  traceback    stillhouse check import-fails --traceback""",
    ),
    Case(
        "E202",
        e202,
        "failed",
        """\
error[E202] llm "no-attribute" from no-attribute 1.0 is not where its entry point says
  entry point  stillhouse.llms: no-attribute = no_attribute:MyLLM
  cause        no_attribute has no MyLLM (no_attribute.py); it has MyLLm
  try          correct the entry point, or define MyLLM in no_attribute, if it is yours; \
else stillhouse install --upgrade no-attribute""",
    ),
    Case(
        "E203",
        e203,
        "failed",
        """\
error[E203] llm "no-llm" from no-llm 1.0 is not a subclass of LLM
  entry point  stillhouse.llms: no-llm = no_llm:Stranger
  cause        Stranger is a class of another kind (no_llm.py:2)
  try          derive it from stillhouse.LLM or stillhouse.AsyncLLM, if it is yours; \
else stillhouse install --upgrade no-llm""",
    ),
    Case(
        "E204",
        e204,
        "failed",
        """\
error[E204] llm "half" from half 1.0 leaves abstract members unimplemented
  entry point  stillhouse.llms: half = half:Half
  cause        Half does not implement generate (half.py:4)
  try          implement generate, if it is yours; else stillhouse install --upgrade half""",
    ),
    Case(
        "E205",
        e205,
        "failed",
        """\
error[E205] llm "no-count" from no-count 1.0 has a generate method with a wrong signature
  entry point  stillhouse.llms: no-count = no_count:NoCount
  cause        NoCount.agenerate takes no num_generations (no_count.py:9)
  try          write it as async def agenerate(self, input, num_generations=1, …), if it is yours; \
else stillhouse install --upgrade no-count""",
    ),
    Case(
        "E206",
        e206,
        "failed",
        """\
error[E206] hook "typo-hook" from typo-hook 1.0 has a hook that does not fit its specification
  entry point  stillhouse.hooks: typo-hook = typo_hook
  cause        there is no hook before_generat (typo_hook.py:5)
  try          rename it to before_generate, if it is yours; else stillhouse install --upgrade typo-hook""",
    ),
    Case(
        "E207",
        e207,
        "failed",
        """\
error[E207] llm "leaky" from leaky 1.0 has a field or parameter that cannot be described or stored
  entry point  stillhouse.llms: leaky = leaky:Leaky
  cause        the field api_key of Leaky holds a secret as plain text (leaky.py:16)
  try          annotate it as api_key: pydantic.SecretStr, if it is yours; else stillhouse install --upgrade leaky""",
    ),
    Case(
        "W208",
        w208,
        "loaded",
        """\
warning[W208] llm "slow" from slow 1.0 takes long to import
  entry point  stillhouse.llms: slow = slow:Slow
  cause        importing slow took 501 ms
  try          import heavy libraries in load(), if it is yours; else stillhouse install --upgrade slow""",
    ),
]


def test_every_code_has_a_case() -> None:
    assert {case.code for case in CASES} == set(CODES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_problem_report_of_every_code(
    case: Case, make_site: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    second = make_site("second")
    site = make_site("site")
    case.install(site)
    if case.code == "E102":
        second.install("second-rival", "2.0", llms={"contested": "second_rival:FakeLLM"})
    if case.code == "W106":
        second.install("twice", "0.9", llms={"twice": "twice:FakeLLM"})
    if case.code == "W208":
        ticks = itertools.count(10.0, 0.501)
        clock = SimpleNamespace(perf_counter=lambda: next(ticks))
        monkeypatch.setattr("stillhouse.registry.loading.time", clock)
    site.install_llm("healthy", "healthy", "healthy_module")
    registry = Registry()

    at_discovery = case.code[1] == "1"
    if at_discovery:
        (info,) = _troubled(registry.plugins(), site)
    else:
        assert _troubled(registry.plugins(), site) == [], "nothing is known before it is loaded"
        name = next(info.name for info in site.infos(registry) if info.name != "healthy")
        (info,) = _troubled(registry.check([name]), site)

    assert [problem.code for problem in info.troubles] == [case.code]
    assert info.status == case.status
    expected = case.report.format(
        core=registry.core_version, site=site.folder, copy=second.folder / "twice-0.9.dist-info"
    )
    expected += f"\n  docs         {explanation_of(case.code)}"
    assert info.reports == [expected]

    # Whoever asks for the name gets the same text, with the facts as attributes.
    if info.kind == "llm" and case.code.startswith("E") and case.code != "E103":
        with pytest.raises(PluginError) as caught:
            registry.get_llm(info.name)
        assert str(caught.value) == expected
        assert caught.value.code == case.code
        assert caught.value.entry_point == info.candidate.entry_point
        assert caught.value.distribution == info.package
        assert caught.value.hint == info.troubles[0].hint

    # And it stays the problem of that one plugin.
    assert registry.get_llm("healthy").__name__ == "FakeLLM"
    assert registry.get_llm("echo").__module__ == "stillhouse.echo"


def _troubled(infos: list[PluginInfo], site: Any) -> list[PluginInfo]:
    return [info for info in infos if info.troubles and info.candidate.location == str(site.folder)]


@pytest.mark.parametrize(
    ("addresses", "base"),
    [
        ((), ""),
        (("Source, https://forge.example/acme",), ""),
        (
            ("Source, https://forge.example", "Documentation, https://docs.example/x"),
            "https://docs.example/x/",
        ),
        (("documentation, https://docs.example/",), "https://docs.example/"),
    ],
)
def test_explanation_of_a_code_is_below_the_documentation_that_the_metadata_names(
    addresses: tuple[str, ...], base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = Message()
    for address in addresses:
        metadata["Project-URL"] = address
    monkeypatch.setattr("stillhouse.registry.problems.importlib_metadata.metadata", lambda name: metadata)
    problems._documentation.cache_clear()
    try:
        assert explanation_of("E201") == f"{base}registry.html#e201"
    finally:
        problems._documentation.cache_clear()
