"""A default LLM and aliases in the user's config file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import ConfigurationError, EchoLLM, UnknownLLMError


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    path = tmp_path / "config.toml"
    monkeypatch.setattr("stillhouse.registry.policy.config_file", lambda: path)

    def write(text: str) -> Path:
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "llm", "model"),
    [
        ('llm = "echo:a"', [], "a"),
        ('llm = "fast"\n[aliases]\nfast = "echo:b"', [], "b"),
        ('llm = "fast"\n[aliases]\nfast = "echo:b"\ngood = "echo:c"', ["--llm", "good"], "c"),
        ('llm = "echo:a"', ["--llm", "echo"], "echo"),
        ('[aliases]\necho = "echo:d"', ["--llm", "echo"], "echo"),
        ('[aliases]\necho = "echo:d"', ["--llm", "echo:e"], "e"),
    ],
)
def test_the_llm_is_what_the_file_says_unless_the_command_does(
    run: Any, config: Any, rows_file: Any, read: Any, tmp_path: Path, text: str, llm: list[str], model: str
) -> None:
    config(text)
    result = run("generate", rows_file([{"prompt": "a"}]), *llm, "-o", tmp_path / "out.jsonl")
    assert result.status == 0, result.err
    assert read(tmp_path / "out.jsonl")[0]["model_name"] == model


def test_saved_settings_win_over_the_default(
    run: Any, config: Any, rows_file: Any, read: Any, tmp_path: Path
) -> None:
    config('llm = "echo:default"')
    stillhouse.create("echo:saved").save(tmp_path / "llm.json")
    source = rows_file([{"prompt": "a"}])
    result = run("generate", source, "--config", tmp_path / "llm.json", "-o", tmp_path / "out.jsonl")
    assert result.status == 0, result.err
    assert read(tmp_path / "out.jsonl")[0]["model_name"] == "saved"


def test_a_run_resumes_by_its_alias_or_by_what_it_stands_for(
    run: Any, config: Any, rows_file: Any, tmp_path: Path
) -> None:
    config('[aliases]\nfast = "echo:b"')
    command = ["generate", rows_file([{"prompt": "a"}]), "-o", tmp_path / "out.jsonl", "--llm"]
    assert run(*command, "fast").status == 0
    for name in ("echo:b", "fast"):
        result = run(*command, name)
        assert result.status == 0, result.err
        assert "is complete" in result.err
    config('[aliases]\nfast = "echo:c"')
    assert run(*command, "fast").status != 0, "it is another command"


def test_python_knows_aliases_and_the_default(config: Any) -> None:
    config('llm = "fast"\n[aliases]\nfast = "echo:b"')
    assert stillhouse.create("fast") == EchoLLM(model="b")
    assert [row["model_name"] for row in stillhouse.run([{"prompt": "a"}])] == ["b"]


def test_an_alias_of_an_unknown_llm_says_what_it_stands_for(run: Any, config: Any) -> None:
    path = config('llm = "fast"\n[aliases]\nfast = "ecco:b"')
    for arguments in (["--llm", "fast"], []):
        result = run("generate", "--prompt", "a", *arguments)
        assert result.status in (1, 2)
        assert f"the alias 'fast' in {path} stands for 'ecco:b': there is no LLM" in result.err
        assert "did you mean 'echo'?" in result.err
    with pytest.raises(UnknownLLMError, match="the alias 'fast'"):
        stillhouse.create("fast")


def test_a_misspelt_alias_is_named(run: Any, config: Any) -> None:
    config('[aliases]\nfastest = "echo:b"')
    result = run("generate", "--prompt", "a", "--llm", "fastst")
    assert "did you mean 'fastest'?" in result.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("llm = 5", "llm in "),
        ('llm = "\\u0007"', "llm in "),
        ('llm = " "', "llm in "),
        ("aliases = 5", "aliases in "),
        ("[aliases]\nfast = 5", "aliases.fast in "),
        ('[aliases]\nfast = ""', "aliases.fast in "),
        ('[aliases]\n"a b" = "echo"', "'a b' in [aliases] of "),
        ('[aliases]\n"a:b" = "echo"', "'a:b' in [aliases] of "),
    ],
)
def test_what_is_no_name_is_one_error(run: Any, config: Any, text: str, message: str) -> None:
    config(text)
    result = run("generate", "--prompt", "a", "--llm", "echo")
    assert result.status in (1, 2)
    assert message in result.err
    assert len(result.err.splitlines()) == 2
    with pytest.raises(ConfigurationError):
        stillhouse.create("echo")


def test_list_shows_the_default_and_the_aliases(run: Any, config: Any) -> None:
    assert "ALIAS" not in run("list").out
    config('llm = "fast"\n[aliases]\nfast = "echo:b"\nall = "echo"')
    lines = [line.split() for line in run("list").out.splitlines()]
    assert lines[-4:] == [
        ["ALIAS", "STANDS", "FOR"],
        ["(default)", "fast"],
        ["all", "echo"],
        ["fast", "echo:b"],
    ]
    assert run("show", "fast").out == run("show", "echo").out
    config('[aliases]\necho = "echo:b"')
    assert "has the alias 'echo', but that is an installed LLM, which wins" in run("list").err
