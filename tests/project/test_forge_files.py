"""The forge's workflows and forms: they parse, and run every environment of tox.ini. What runs before a commit is the same."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FORGE = ROOT / ".github"
WORKFLOWS = sorted((FORGE / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (FORGE / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")

by_name = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)

# What tox runs with the interpreter of that name, whether or not env_list has it.
INTERPRETER = re.compile(r"py3\d+")


def load(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict), path
    # YAML 1.1, which pyyaml reads, takes the key `on` for a truth value.
    return {"on" if key is True else key: value for key, value in loaded.items()}


def tox() -> tuple[set[str], set[str]]:
    """The environments that run by default, and those that have a section."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "tox.ini", encoding="utf-8")
    default = {name for name in re.split(r"[\s,]+", config["tox"]["env_list"]) if name}
    sections = {name.removeprefix("testenv:") for name in config.sections() if name.startswith("testenv:")}
    return default, sections


def called(workflow: dict[str, Any]) -> set[str]:
    """The tox environments that the jobs of a workflow run."""
    found: set[str] = set()
    for job in workflow["jobs"].values():
        for step in job.get("steps", []):
            for names in re.findall(r"\btox (?:run )?-e (\$\{\{[^}]*\}\}|\S+)", step.get("run", "")):
                if variable := re.fullmatch(r"\$\{\{ matrix\.(\w+) \}\}", names):
                    found.update(job["strategy"]["matrix"][variable[1]])
                else:
                    found.update(names.split(","))
    return found


def test_there_are_workflows_and_forms() -> None:
    assert {path.name for path in WORKFLOWS} == {"docs.yml", "release.yml", "test.yml", "weekly.yml"}
    assert {path.name for path in FORMS} == {"backend-request.yml", "bug.yml"}


def test_every_environment_that_a_workflow_calls_is_one_of_tox() -> None:
    default, sections = tox()
    for path in WORKFLOWS:
        unknown = {
            name
            for name in called(load(path))
            if name not in default | sections and not INTERPRETER.fullmatch(name)
        }
        assert unknown == set(), path.name


def test_every_environment_of_tox_is_called_by_a_workflow() -> None:
    default, sections = tox()
    assert default - sections - {name for name in default if INTERPRETER.fullmatch(name)} == set()
    assert default - set().union(*(called(load(path)) for path in WORKFLOWS)) == set()


def test_the_core_is_tested_everywhere_on_every_python() -> None:
    matrix = load(FORGE / "workflows/test.yml")["jobs"]["core"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert {entry["environment"] for entry in matrix["include"]} == set(matrix["environment"])
    for entry in matrix["include"]:
        assert entry["environment"] == f"py{entry['python'].replace('.', '')}"


@by_name
def test_a_workflow_may_do_no_more_than_it_must(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in workflow["on"]
    assert workflow["concurrency"]["group"]
    for name, job in workflow["jobs"].items():
        if "uses" not in job:
            assert job["timeout-minutes"] <= 60, name
        writes = {scope for scope, level in job.get("permissions", {}).items() if level == "write"}
        assert writes <= {"id-token", "pages"}, name
        assert not writes or "environment" in job, f"{name} can write without an environment that guards it"


@by_name
def test_actions_are_pinned_and_keep_no_credentials(path: Path) -> None:
    for name, job in load(path)["jobs"].items():
        for step in job.get("steps", []):
            used = step.get("uses")
            assert used is None or re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+)", used), (
                f"{name}: {used}"
            )
            if used and used.startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name


@by_name
def test_workflow_scripts_contain_no_untrusted_expressions(path: Path) -> None:
    for name, job in load(path)["jobs"].items():
        for step in job.get("steps", []):
            values = re.findall(r"\$\{\{\s*([^}\s]+)", step.get("run", ""))
            assert all(value.startswith("matrix.") for value in values), f"{name}: use env instead"


def test_a_release_is_published_only_after_the_checks() -> None:
    jobs = load(FORGE / "workflows/release.yml")["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml"
    assert set(jobs["publish"]["needs"]) == {"test", "build"}
    assert "workflow_call" in load(FORGE / "workflows/test.yml")["on"]
    assert not any("workflow" in job.get("if", "") for job in jobs.values())


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_form_has_the_required_keys(path: Path) -> None:
    form = load(path)
    assert {"name", "description", "body"} <= set(form)
    fields = [item for item in form["body"] if item["type"] != "markdown"]
    ids = [item["id"] for item in fields]
    assert len(ids) == len(set(ids))
    assert all(item["attributes"]["label"] for item in fields)
    assert any(item.get("validations", {}).get("required") for item in fields)


def test_bug_form_asks_for_the_installed_plugins() -> None:
    text = (FORGE / "ISSUE_TEMPLATE/bug.yml").read_text(encoding="utf-8")
    assert "stillhouse list --json" in text
    assert "stillhouse check" in text


def test_dependabot_looks_at_folders_that_have_requirements() -> None:
    updates = load(FORGE / "dependabot.yml")["updates"]
    (python,) = (update for update in updates if update["package-ecosystem"] == "pip")
    for folder in python["directories"]:
        assert list((ROOT / folder.strip("/")).glob("*.txt")), folder


def test_what_runs_before_a_commit_is_what_tox_runs() -> None:
    (local,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    hooks = {hook["id"]: hook for hook in local["hooks"]}
    lint = (
        (ROOT / "tox.ini")
        .read_text(encoding="utf-8")
        .partition("[testenv:lint]")[2]
        .partition("[testenv:")[0]
    )
    for name in ("ruff-check", "ruff-format"):
        (required,) = hooks[name]["additional_dependencies"]
        assert re.search(rf"^\s*(deps =)?\s*{re.escape(required)}$", lint, re.M), f"{name}: {required}"
    assert "--fix" not in lint
    assert local["repo"] == "local"
