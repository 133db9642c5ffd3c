"""Real packages, each broken in one way, and the real command beside them."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stillhouse.registry import CODES
from stillhouse.registry.problems import explanation_of

pytestmark = pytest.mark.environment

PACKAGES = Path(__file__).parent / "packages"


@dataclass(frozen=True)
class Broken:
    """One broken package.

    Attributes:
        package: its folder and distribution.
        code: what it is to be told as.
        cause: a pattern that the cause matches as a whole.
        hint: a pattern that the hint matches as a whole.
        status: its state in the end.
    """

    package: str
    code: str
    cause: str
    hint: str
    status: str = "failed"

    def __str__(self) -> str:
        return self.package

    @property
    def project(self) -> dict[str, Any]:
        return tomllib.loads((PACKAGES / self.package / "pyproject.toml").read_text())["project"]  # type: ignore[no-any-return]

    @property
    def entry_point(self) -> tuple[str, str, str]:
        """Group, name and value."""
        ((group, entries),) = self.project["entry-points"].items()
        ((name, value),) = entries.items()
        return group, name, value

    @property
    def name(self) -> str:
        return self.entry_point[1]

    @property
    def kind(self) -> str:
        return "hook" if "hooks" in self.entry_point[0] else "llm"

    @property
    def module(self) -> str:
        return self.package.replace("-", "_")

    @property
    def at_discovery(self) -> bool:
        return self.code[1] == "1"


def else_upgrade(package: str) -> str:
    return f", if it is yours; else stillhouse install --upgrade {package}"


BROKEN = [
    Broken(
        "broken-e101-name",
        "E101",
        "'E101_Name' is not small letters, digits and hyphens, the first no hyphen",
        "ask the authors of broken-e101-name for another name",
    ),
    Broken(
        "broken-e102-first",
        "E102",
        r"broken-e102-first 1\.0\.0 and broken-e102-second 2\.0\.0 declare it",
        "STILLHOUSE_PREFER=contested=broken-e102-first or STILLHOUSE_PREFER=contested=broken-e102-second; "
        "or pip uninstall what you do not need",
        "conflict",
    ),
    Broken(
        "broken-e102-second",
        "E102",
        r"broken-e102-first 1\.0\.0 and broken-e102-second 2\.0\.0 declare it",
        "STILLHOUSE_PREFER=contested=broken-e102-first or STILLHOUSE_PREFER=contested=broken-e102-second; "
        "or pip uninstall what you do not need",
        "conflict",
    ),
    Broken(
        "broken-e103-built-in",
        "E103",
        "echo is built into stillhouse, and the built-in one is used",
        "pip uninstall broken-e103-built-in, or ask its authors for another name",
        "conflict",
    ),
    Broken(
        "broken-e104-group",
        "E104",
        r"the group stillhouse\.llms\.v9 is not known to stillhouse \d\S*, which reads stillhouse\.llms",
        "stillhouse install --upgrade stillhouse",
        "incompatible",
    ),
    Broken(
        "broken-e105-core",
        "E105",
        r"it requires stillhouse<100,>=99, and stillhouse \d\S* is installed",
        r'stillhouse install --upgrade "stillhouse>=99,<100"',
        "incompatible",
    ),
    Broken(
        "broken-w106-twice",
        "W106",
        r"the one in .*site-packages is used; there is also .*second.broken_w106_twice-1\.0\.0\.dist-info",
        "delete it if it is a leftover, take its folder off PYTHONPATH, "
        "or pip uninstall broken-w106-twice and install it again",
        "loaded",
    ),
    Broken(
        "broken-e201-import",
        "E201",
        r"ImportError: cannot import name 'a_name_that_json_lacks' from 'json' .*\(broken_e201_import\.py:3\)",
        "stillhouse install --upgrade broken-e201-import",
    ),
    Broken(
        "broken-e201-exit",
        "E201",
        r"SystemExit: this is a script \(broken_e201_exit\.py:5\)",
        "stillhouse install --upgrade broken-e201-exit",
    ),
    Broken(
        "broken-e201-syntax",
        "E201",
        r"SyntaxError: .+ \(broken_e201_syntax\.py:3\)",
        "stillhouse install --upgrade broken-e201-syntax",
    ),
    Broken(
        "broken-e201-missing",
        "E201",
        r"ModuleNotFoundError: No module named 'a_library_that_nobody_has' \(broken_e201_missing\.py:3\)",
        r'stillhouse install "broken-e201-missing\[fast\]"',
    ),
    Broken(
        "broken-e202-attribute",
        "E202",
        r"broken_e202_attribute has no BrokenLlm \(broken_e202_attribute\.py\); it has BrokenLLM",
        "correct the entry point, or define BrokenLlm in broken_e202_attribute"
        + else_upgrade("broken-e202-attribute"),
    ),
    Broken(
        "broken-e203-class",
        "E203",
        r"BrokenLLM is a class of another kind \(broken_e203_class\.py:4\)",
        r"derive it from stillhouse\.LLM or stillhouse\.AsyncLLM" + else_upgrade("broken-e203-class"),
    ),
    Broken(
        "broken-e204-abstract",
        "E204",
        r"BrokenLLM does not implement model_name \(broken_e204_abstract\.py:6\)",
        "implement model_name" + else_upgrade("broken-e204-abstract"),
    ),
    Broken(
        "broken-e205-signature",
        "E205",
        r"BrokenLLM\.agenerate takes no num_generations \(broken_e205_signature\.py:11\)",
        r"write it as async def agenerate\(self, input, num_generations=1, …\)"
        + else_upgrade("broken-e205-signature"),
    ),
    Broken(
        "broken-e205-coroutine",
        "E205",
        r"BrokenLLM\.agenerate must be a coroutine \(broken_e205_coroutine\.py:11\)",
        r"write it as async def agenerate\(self, input, num_generations=1, …\)"
        + else_upgrade("broken-e205-coroutine"),
    ),
    Broken(
        "broken-e206-unknown",
        "E206",
        r"there is no hook before_generation \(broken_e206_unknown\.py:12\)",
        "rename it to before_generate" + else_upgrade("broken-e206-unknown"),
    ),
    Broken(
        "broken-e206-argument",
        "E206",
        r"before_generate takes prompt, but the hook has only llm, input, num_generations, arguments, row "
        r"\(broken_e206_argument\.py:7\)",
        "take prompt out of its arguments" + else_upgrade("broken-e206-argument"),
    ),
    Broken(
        "broken-e207-field",
        "E207",
        r"the field client of BrokenLLM cannot be stored in a file: "
        r"JSON has no form for <class 'broken_e207_field\.Client'> \(broken_e207_field\.py:12\)",
        r"give it a type that JSON knows, make it a private attribute \(_name\), "
        r"or declare it with Field\(exclude=True\)" + else_upgrade("broken-e207-field"),
    ),
    Broken(
        "broken-e207-secret",
        "E207",
        r"the field api_key of BrokenLLM holds a secret as plain text \(broken_e207_secret\.py:8\)",
        r"annotate it as api_key: pydantic\.SecretStr" + else_upgrade("broken-e207-secret"),
    ),
    Broken(
        "broken-w208-slow",
        "W208",
        r"importing broken_w208_slow took \d+ ms",
        r"import heavy libraries in load\(\)" + else_upgrade("broken-w208-slow"),
        "loaded",
    ),
]

ERRORS = [broken for broken in BROKEN if broken.code.startswith("E")]

# The built-in one answers to echo, and of two rivals the first is reported.
# A conflict is one problem, and one report that names all who claim the name.
REPORTED_BY_ANOTHER = {"broken-e102-second": "broken-e102-first"}
UNUSABLE = [
    broken
    for broken in ERRORS
    if broken.kind == "llm" and broken.package not in ("broken-e103-built-in", "broken-e102-second")
]


def test_every_code_has_a_real_package() -> None:
    assert {broken.code for broken in BROKEN} == set(CODES)
    assert {broken.package for broken in BROKEN} | {"stranger"} == {path.name for path in PACKAGES.iterdir()}


def entry_of(printed: dict[str, Any], broken: Broken) -> dict[str, Any]:
    (entry,) = [entry for entry in printed[f"{broken.kind}s"] if entry["distribution"] == broken.package]
    found: dict[str, Any] = entry
    return found


def report_of(text: str, broken: Broken) -> str:
    """The report of this package in what a command printed."""
    severity = "error" if broken.code.startswith("E") else "warning"
    package = f"{broken.package} {broken.project['version']}"
    head = re.escape(
        f'{severity}[{broken.code}] {broken.kind} "{broken.name}" from {package} {CODES[broken.code]}'
    )
    reports = re.findall(rf"^{head}\n(?:  \S.*\n?)+", text, re.MULTILINE)
    assert len(reports) == 1, f"{len(reports)} reports of {broken.package} in:\n{text}"
    report: str = reports[0]
    return report


def imported_by(run: Callable[..., Any], *arguments: str) -> set[str]:
    """The modules that a command imports. (Python's import times leave out `import_module`.)"""
    result = run(*arguments, PYTHONVERBOSE="1")
    assert result.status == 0
    imported = re.findall(r"^import '(\S+)' #", result.err, re.MULTILINE)
    # An import that fails is seen by the file that it came from.
    tried = re.findall(r"\b(broken_\w+|stranger)\.(?:py\b|cpython)", result.err)
    return {*imported, *tried}


# Listing


def test_list_names_every_package(listed: dict[str, Any]) -> None:
    names = {entry["distribution"] for entry in [*listed["llms"], *listed["hooks"]]}
    assert names == {"stillhouse", "stranger", *(broken.package for broken in BROKEN)}
    assert listed["warnings"] == []


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_list_reports_problems_that_need_no_import(listed: dict[str, Any], broken: Broken) -> None:
    entry = entry_of(listed, broken)
    group, name, value = broken.entry_point
    assert entry["name"] == name
    assert entry["entry_point"] == f"{group}: {name} = {value}"
    assert entry["version"] == broken.project["version"]
    assert entry["summary"] == broken.project["description"]
    if not broken.at_discovery:
        assert (entry["status"], entry["troubles"]) == ("found", [])
        return
    assert entry["status"] == ("found" if broken.code == "W106" else broken.status)
    (trouble,) = entry["troubles"]
    assert trouble["code"] == broken.code
    assert trouble["severity"] == ("error" if broken.code.startswith("E") else "warning")
    assert trouble["message"] == CODES[broken.code]
    assert re.fullmatch(broken.cause, trouble["cause"]), trouble["cause"]
    assert re.fullmatch(broken.hint, trouble["hint"]), trouble["hint"]


def test_list_shows_the_healthy_ones_and_reports_the_others(run: Callable[..., Any]) -> None:
    result = run("list")
    assert result.status == 0, result.err
    table = {line.split()[0]: line for line in result.out.splitlines() if line.strip()}
    assert "built-in" in table["echo"] or "conflict" in table["echo"]
    assert re.search(r"^echo +built-in +stillhouse ", result.out, re.MULTILINE)
    assert re.search(r"^stranger +found +stranger 0\.3\.1 +Written by a stranger", result.out, re.MULTILINE)
    for broken in BROKEN:
        if broken.at_discovery and broken.package not in REPORTED_BY_ANOTHER:
            report_of(result.out + result.err, broken)
    assert result.err.count("error[E102]") == 1


def test_list_imports_no_plugin_and_nothing_heavy(run: Callable[..., Any]) -> None:
    for arguments in (("list",), ("list", "--json"), ("--help",), ("--version",)):
        imported = imported_by(run, *arguments)
        assert "stillhouse" in imported
        ours = {name for name in imported if name.startswith(("broken_", "stranger"))}
        assert not ours
        assert not {"pydantic", "pluggy"} & imported
        if arguments[0].startswith("--"):
            assert "stillhouse.registry.candidates" not in imported, "help and version discover nothing"


def test_help_and_version_work(run: Callable[..., Any]) -> None:
    for arguments in (("--help",), ("list", "--help"), ("generate", "--help"), ("--version",)):
        result = run(*arguments)
        assert (result.status, result.err) == (0, "")
        assert result.out


# Checking


def test_check_fails_and_reports_every_problem(checked: Any) -> None:
    assert checked.status == 1
    text = checked.out + checked.err
    for broken in BROKEN:
        if broken.package not in REPORTED_BY_ANOTHER:
            report_of(text, broken)
    assert text.count("error[") == len(ERRORS) - len(REPORTED_BY_ANOTHER)
    assert text.count("warning[") == len(BROKEN) - len(ERRORS)
    assert "Traceback" not in text


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_check_reports_one_broken_plugin(run: Callable[..., Any], broken: Broken) -> None:
    """A check of this one alone: the whole report, and the exit status."""
    result = run("check", broken.name)
    if broken.code.startswith("E"):
        assert result.status == 1
    else:
        assert result.status == 0
    if broken.package in REPORTED_BY_ANOTHER:
        (broken,) = (item for item in BROKEN if item.package == REPORTED_BY_ANOTHER[broken.package])
    lines = report_of(result.out + result.err, broken).splitlines()
    group, name, value = broken.entry_point
    assert lines[1] == f"  entry point  {group}: {name} = {value}"
    assert re.fullmatch(f"  cause        {broken.cause}", lines[2]), lines[2]
    assert re.fullmatch(f"  try          {broken.hint}", lines[3]), lines[3]
    traceback = [f"  traceback    stillhouse check {name} --traceback"] if broken.code == "E201" else []
    assert lines[4:] == [*traceback, f"  docs         {explanation_of(broken.code)}"]


def test_check_as_json(run: Callable[..., Any]) -> None:
    result = run("check", "--json")
    assert result.status == 1
    found = {entry["distribution"]: entry for entry in json.loads(result.out)}
    for broken in BROKEN:
        entry = found[broken.package]
        assert entry["status"] == broken.status
        assert [trouble["code"] for trouble in entry["troubles"]] == [broken.code]
    assert (found["stranger"]["status"], found["stranger"]["troubles"]) == ("loaded", [])


def test_check_of_healthy_plugins_succeeds(run: Callable[..., Any]) -> None:
    result = run("check", "stranger", "w106-twice", "w208-slow")
    assert result.status == 0, result.out + result.err


def test_check_with_broken_plugins_disabled_succeeds(run: Callable[..., Any]) -> None:
    switched_off = ",".join(broken.package for broken in ERRORS)
    result = run("check", STILLHOUSE_DISABLE_PLUGINS=switched_off)
    assert result.status == 0, result.out + result.err
    assert run("check", STILLHOUSE_PLUGINS="stranger").status == 0


def test_check_prints_the_traceback_that_the_report_promises(run: Callable[..., Any]) -> None:
    result = run("check", "e201-missing", "--traceback")
    assert result.status == 1
    text = result.out + result.err
    assert "Traceback (most recent call last)" in text
    assert "broken_e201_missing.py" in text
    assert "import a_library_that_nobody_has.client as client" in text


# Using


@pytest.mark.parametrize("broken", UNUSABLE, ids=str)
def test_generate_with_a_broken_plugin_prints_its_report(run: Callable[..., Any], broken: Broken) -> None:
    result = run("generate", "--prompt", "hi", "--llm", broken.name)
    assert (result.status, result.out) == (1, "")
    report = report_of(result.err, broken)
    assert re.search(rf"^  try          {broken.hint}$", report, re.MULTILINE)
    assert "Traceback" not in result.err


def test_show_of_a_broken_plugin_prints_its_report(run: Callable[..., Any]) -> None:
    broken = next(broken for broken in BROKEN if broken.code == "E201")
    result = run("show", broken.name)
    assert (result.status, result.out) == (1, "")
    report_of(result.err, broken)


def test_healthy_plugin_generates_beside_broken_ones(run: Callable[..., Any], tmp_path: Path) -> None:
    prompts = ["stressed", "fail", "drawer", "a b"]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"prompt": text, "id": text}) + "\n" for text in prompts))
    target = tmp_path / "answers.jsonl"
    result = run(
        "generate", str(source), "--llm", "stranger:backwards", "--set", "greeting=> ",
        "--param", "max_new_tokens=8", "-n", "2", "-o", str(target),
    )  # fmt: skip
    assert result.status == 3, result.err
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["id"] for row in rows] == prompts
    assert [row["generations"] for row in rows] == [
        ["> dessert"[:8]] * 2,
        rows[1]["generations"],
        ["> reward"] * 2,
        ["> b a"] * 2,
    ]
    assert rows[0]["model_name"] == "backwards"
    assert rows[0]["statistics"] == {"input_tokens": [8], "output_tokens": [8, 8]}
    assert rows[1]["error"]["kind"] == "content_filter"
    assert rows[0]["error"] is None


@pytest.mark.parametrize(
    ("llm", "answer"),
    [("echo", "hi"), ("stranger", "ih"), ("w106-twice", "fine"), ("w208-slow", "slow but sound")],
)
def test_every_healthy_plugin_generates(run: Callable[..., Any], llm: str, answer: str) -> None:
    result = run("generate", "--prompt", "hi", "--llm", llm)
    assert result.status == 0, result.err
    assert result.out.strip() == answer


def test_broken_hook_is_reported_when_a_run_starts(run: Callable[..., Any]) -> None:
    result = run("generate", "--prompt", "hi", "--llm", "echo")
    assert result.status == 0, result.err
    for broken in BROKEN:
        if broken.kind == "hook":
            report_of(result.err, broken)


def test_show_of_a_strangers_plugin(run: Callable[..., Any]) -> None:
    result = run("show", "stranger", "--json")
    assert result.status == 0, result.err
    shown = json.loads(result.out)
    assert shown["package"] == "stranger 0.3.1"
    assert {"model", "api_key", "greeting"} <= {field["name"] for field in shown["fields"]}
    assert [item["name"] for item in shown["parameters"]] == ["max_new_tokens"]
    assert set(shown["capabilities"]) == {"chat", "raw_prompt", "num_generations"}


# The remedies that a report names


@pytest.mark.parametrize("choice", ["first", "second"])
def test_prefer_switch_selects_one_of_two_claimants(run: Callable[..., Any], choice: str) -> None:
    preference = f"contested=broken-e102-{choice}"
    result = run("generate", "--prompt", "hi", "--llm", "contested", STILLHOUSE_PREFER=preference)
    assert result.status == 0, result.err
    assert result.out.strip() == f"the {choice}"


def test_disabling_one_of_two_claimants_selects_the_other(run: Callable[..., Any]) -> None:
    switch = {"STILLHOUSE_DISABLE_PLUGINS": "Broken.E102_First"}
    result = run("generate", "--prompt", "hi", "--llm", "contested", **switch)
    assert result.out.strip() == "the second"


def test_a_typo_in_a_switch_is_visible(run: Callable[..., Any]) -> None:
    for arguments in (("list",), ("generate", "--prompt", "hi", "--llm", "echo")):
        result = run(*arguments, STILLHOUSE_PLUGINS="strangr")
        assert result.status == 0, result.err
        assert "STILLHOUSE_PLUGINS names 'strangr'" in result.out + result.err
        assert "did you mean 'stranger'?" in result.out + result.err


def test_unknown_name_suggests_an_installed_plugin(run: Callable[..., Any]) -> None:
    result = run("generate", "--prompt", "hi", "--llm", "strangr")
    assert result.status == 1
    assert 'there is no LLM "strangr"' in result.err
    assert "did you mean 'stranger'?" in result.err


def test_generate_imports_only_the_requested_plugin(run: Callable[..., Any]) -> None:
    imported = imported_by(run, "generate", "--prompt", "hi", "--llm", "stranger")
    hooks = {broken.module for broken in BROKEN if broken.kind == "hook"}
    assert {name for name in imported if name.startswith(("broken_", "stranger"))} == {"stranger", *hooks}
