"""`stillhouse list`, `show` and `check`, in a pipe and for machines."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

import stillhouse
from stillhouse import LLM, GenerateOutput, RuntimeParameter

PLUGIN_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "status", "distribution", "version", "summary", "entry_point", "troubles"],
    "properties": {
        "name": {"type": "string"},
        "status": {
            "enum": [
                "built-in",
                "found",
                "disabled",
                "settled",
                "incompatible",
                "conflict",
                "loaded",
                "failed",
            ]
        },
        "settled_by": {"type": "string", "minLength": 1},
        "distribution": {"type": "string"},
        "version": {"type": "string"},
        "summary": {"type": "string"},
        "entry_point": {"type": "string"},
        "troubles": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["code", "severity", "message", "cause", "hint"],
                "properties": {
                    "code": {"type": "string", "pattern": "^[EW][12]0[0-9]$"},
                    "severity": {"enum": ["error", "warning"]},
                    "message": {"type": "string", "minLength": 1},
                    "cause": {"type": "string", "minLength": 1},
                    "hint": {"type": "string", "minLength": 1},
                },
            },
        },
    },
}

AVAILABLE_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "kind", "distribution", "summary", "installed"],
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "kind": {"enum": ["llm", "hook"]},
        "distribution": {"type": "string", "minLength": 1},
        "summary": {"type": "string", "minLength": 1},
        "installed": {"type": "boolean"},
    },
}

LIST_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["stillhouse", "llms", "hooks", "warnings"],
    "properties": {
        "stillhouse": {"type": "string"},
        "llms": {"type": "array", "minItems": 1, "items": PLUGIN_SCHEMA},
        "hooks": {"type": "array", "items": PLUGIN_SCHEMA},
        "warnings": {"type": "array", "items": {"type": "string"}},
    },
}


def two_conflicting_plugins() -> stillhouse.Registry:
    from importlib_metadata import EntryPoint

    return stillhouse.Registry(
        entry_points=[
            EntryPoint("acme", "acme_one:LLM", "stillhouse.llms"),
            EntryPoint("acme", "acme_two:LLM", "stillhouse.llms"),
            EntryPoint("watch", "watcher", "stillhouse.hooks"),
        ]
    )


def test_the_list_in_a_pipe_is_plain_text(run: Any) -> None:
    version = stillhouse.__version__
    assert run("list").out == (
        "NAME  STATUS    PACKAGE           SUMMARY\n"
        f"echo  built-in  stillhouse {version}  Answers with its input; no model\n"
    )


def test_list_json_matches_its_schema(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.registry.registry._default", two_conflicting_plugins())
    monkeypatch.setenv("STILLHOUSE_DISABLE_PLUGINS", "nobody")
    listed = json.loads(run("list", "--json").out)
    jsonschema.validate(listed, LIST_SCHEMA)
    assert [(item["name"], item["status"]) for item in listed["llms"]] == [
        ("acme", "conflict"), ("acme", "conflict"), ("echo", "built-in"),
    ]  # fmt: skip
    assert listed["hooks"][0]["name"] == "watch"
    assert "nobody" in listed["warnings"][0]


def one_of_a_package() -> stillhouse.Registry:
    from importlib_metadata import EntryPoint, PathDistribution

    class Installed(PathDistribution):
        def __init__(self) -> None:
            pass

        def read_text(self, filename: str) -> str | None:
            lines = "Metadata-Version: 2.1\nName: Stillhouse_OpenAI\nVersion: 0.1.0\nSummary: Something\n"
            return lines if filename == "METADATA" else None

    point = EntryPoint("openai", "somewhere:LLM", "stillhouse.llms")
    return stillhouse.Registry(entry_points=[point._for(Installed())])


def test_available_lists_what_could_be_installed(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.registry.registry._default", one_of_a_package())
    lines = run("list", "--available").out.splitlines()
    (ours,) = [line.split() for line in lines if line.startswith("openai ")]
    assert ours[1] != "not"
    (other,) = [line for line in lines if line.startswith("anthropic ")]
    assert other.split(maxsplit=4)[1:4] == ["not", "installed", "stillhouse-anthropic"]
    assert "Messages API" in other
    assert any(line.startswith("HOOK") for line in lines)
    assert any(line.startswith("cache ") and "not installed" in line for line in lines)
    names = [line.split()[0] for line in lines[1 : lines.index("")]]
    assert names == sorted(names)
    assert "echo" in names
    assert len(names) > 10


def test_available_json_matches_its_schema(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.registry.registry._default", one_of_a_package())
    listed = json.loads(run("list", "--available", "--json").out)
    jsonschema.validate(listed, {
        **LIST_SCHEMA,
        "required": [*LIST_SCHEMA["required"], "available"],
        "properties": {**LIST_SCHEMA["properties"], "available": {"type": "array", "items": AVAILABLE_SCHEMA}},
    })  # fmt: skip
    found = {item["name"]: item for item in listed["available"]}
    assert found["openai"]["installed"]
    assert found["openai"]["distribution"] == "stillhouse-openai"
    assert not found["anthropic"]["installed"]
    assert found["cache"]["kind"] == "hook"


def test_available_pins_nothing(run: Any) -> None:
    result = run("list", "--available", "--requirements")
    assert result.status == 2
    assert "leave out --available" in result.err


def test_list_reports_problems_on_standard_error(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.registry.registry._default", two_conflicting_plugins())
    result = run("list")
    assert result.status == 0
    assert "conflict E102" in result.out
    assert result.err.count("E102") == 1, "one conflict is one report"
    assert "E102]" not in result.out
    assert run("check").err.count("error[E102]") == 1


@pytest.fixture
def settled(own_registry: stillhouse.Registry, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two packages that claim one name, and a user who prefers one of them."""
    from stillhouse.registry import Candidate
    from stillhouse.registry.candidates import Scan

    claimants = [
        Candidate("acme", f"stillhouse.echo:{cls}", "stillhouse.llms", name, "1.0", "Talks to acme")
        for name, cls in (("acme-one", "NoSuchLLM"), ("acme-two", "EchoLLM"))
    ]
    monkeypatch.setattr(
        "stillhouse.registry.discovery.scan", lambda: Scan(tuple(claimants), stillhouse.__version__)
    )
    registry = stillhouse.Registry()
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)
    monkeypatch.delenv("STILLHOUSE_DISABLE_PLUGINS", raising=False)
    monkeypatch.setenv("STILLHOUSE_PREFER", "acme=acme-two")
    return registry


def test_settled_conflict_is_listed_with_what_settles_it(run: Any, settled: Any) -> None:
    result = run("list")
    assert (result.status, result.err) == (0, "")
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert "acme settled acme-one 1.0 STILLHOUSE_PREFER prefers acme-two" in lines
    assert "acme found acme-two 1.0 Talks to acme" in lines
    listed = json.loads(run("list", "--json").out)
    jsonschema.validate(listed, LIST_SCHEMA)
    assert [item.get("settled_by") for item in listed["llms"] if item["name"] == "acme"] == [
        "STILLHOUSE_PREFER prefers acme-two",
        None,
    ]


@pytest.mark.parametrize("names", [[], ["acme"]])
def test_check_of_a_settled_conflict_succeeds(run: Any, settled: Any, names: list[str]) -> None:
    result = run("check", *names)
    assert (result.status, result.err) == (0, "")
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert "acme settled acme-one 1.0; STILLHOUSE_PREFER prefers acme-two" in lines
    assert "acme loaded acme-two 1.0" in lines
    assert json.loads(run("check", "--json", "acme").out)[0]["status"] == "settled"


def test_show_of_a_settled_name_shows_the_preferred_one(run: Any, settled: Any) -> None:
    assert "acme-two 1.0" in run("show", "acme").out


@pytest.mark.parametrize("command", [["show", "tgi"], ["generate", "--prompt", "hi", "--llm", "tgi:m"]])
def test_name_of_a_server_is_answered_with_the_address_to_set(run: Any, command: list[str]) -> None:
    result = run(*command)
    assert result.status == 1
    assert 'error: there is no LLM "tgi"' in result.err
    assert "use openai-compatible:MODEL with base_url=http://localhost:8080/v1" in result.err
    assert "llamacpp" not in result.err


def test_list_requirements_prints_pinned_versions(run: Any) -> None:
    assert run("list", "--requirements").out == f"stillhouse=={stillhouse.__version__}\n"


class AcmeLLM(LLM):
    """Talks to acme.

    In detail.
    """

    model: str
    speed: RuntimeParameter[float] | None = None

    @property
    def model_name(self) -> str:
        return self.model

    def generate(
        self,
        inputs: Any,
        num_generations: int = 1,
        temperature: float = 0.5,
        stop: str | list[str] | None = None,
    ) -> list[GenerateOutput]:
        """Generate.

        Args:
            temperature: how daring
                it is.
        """
        return []


def test_show_says_what_a_class_declares(run: Any, own_registry: stillhouse.Registry) -> None:
    own_registry.register("acme", AcmeLLM)
    result = run("show", "acme")
    assert result.status == 0
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert "model str required" in lines
    assert "speed float | None -" in lines
    assert "temperature float 0.5 how daring it is." in lines
    assert "stop str | list[str] | None -" in lines
    assert "capabilities: chat" in lines
    assert "Talks to acme." in lines


def test_show_json_describes_the_fields(run: Any, own_registry: stillhouse.Registry) -> None:
    own_registry.register("acme", AcmeLLM)
    shown = json.loads(run("show", "acme", "--json").out)
    fields = {field["name"]: field for field in shown["fields"]}
    assert fields["model"]["required"]
    assert not fields["model"]["runtime"]
    assert fields["speed"]["runtime"]
    assert not fields["speed"]["required"]
    assert shown["parameters"][0] == {
        "name": "temperature",
        "type": "float",
        "required": False,
        "default": 0.5,
        "description": "how daring\nit is.",
    }


def test_show_of_an_unknown_name(run: Any) -> None:
    result = run("show", "ecko")
    assert result.status == 1
    assert "did you mean 'echo'?" in result.err


def test_check_loads_and_passes(run: Any) -> None:
    result = run("check")
    assert result.status == 0
    assert result.out.splitlines()[1].split() == ["echo", "loaded", "stillhouse", stillhouse.__version__]


def test_check_names_what_is_broken_and_exits_with_1(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib_metadata import EntryPoint

    registry = stillhouse.Registry(
        entry_points=[EntryPoint("acme", "no_such_module_here:LLM", "stillhouse.llms")]
    )
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)
    result = run("check")
    assert result.status == 1
    assert "failed E201" in result.out
    assert "No module named 'no_such_module_here'" in result.err
    assert "Traceback (most recent call last)" in run("check", "acme", "--traceback").err
    assert run("check", "echo").status == 0
    assert run("check", "nothing").status == 1


def test_the_version_and_the_help(run: Any) -> None:
    assert run("--version").out == f"stillhouse {stillhouse.__version__}\n"
    text = run("--help").out
    assert all(command in text for command in ("list", "show", "check", "generate"))
    assert "╭" not in text
