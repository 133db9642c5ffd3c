"""Files of settings that would take for ever, or hold themselves, or no numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillhouse import LLM, ConfigurationError

# Aliases of aliases: ten times as much in each line.
BOMB = "l0: &l0 [x]\n" + "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 10))
MERGED = "l0: &l0 {a: 1}\n" + "".join(
    f"l{n}: &l{n}\n  <<: [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "more than 100,000 items"),
        ("llm: echo\nmodel: &x\n" + BOMB.replace("l0:", "z:"), "more than 100,000 items"),
        (MERGED, "more than 100,000 items"),
        ("llm: echo\nmodel: &x [*x]\n", "line 2 holds itself"),
        ("&x\nllm: echo\nmodel: *x\n", "holds itself"),
        ("&x\nllm: echo\nmodel: {a: [1, *x]}\n", "holds itself"),
        ("llm: echo\nlatency: .nan\n", "nan is no number"),
        ("llm: echo\ngeneration_kwargs: {temperature: .inf}\n", "inf is no number"),
        ("llm: echo\nlatency: " + "9" * 5000, "not valid YAML"),
        ("llm: echo\nmodel: " + "[" * 3000 + "]" * 3000, "not valid YAML"),
        ("llm: echo\nmodel: !!python/object/apply:os.system ['exit 1']\n", "not valid YAML"),
    ],
    ids=["aliases", "below", "merged", "itself", "root", "deep", "nan", "inf", "digits", "nested", "code"],
)
def test_a_hostile_yaml_file_is_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        LLM.from_file(file)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"llm": "echo", "latency": NaN}', "nan is no number"),
        ('{"llm": "echo", "generation_kwargs": {"a": 1e400}}', "inf is no number"),
        ('{"llm": "echo", "latency": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
    ids=["nan", "inf", "digits", "nested"],
)
def test_a_hostile_json_file_is_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        LLM.from_file(file)


def test_aliases_that_are_few_are_written_out(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("llm: echo\nmodel: &name tiny\ngeneration_kwargs: {}\n")
    assert LLM.from_file(file).model_name
