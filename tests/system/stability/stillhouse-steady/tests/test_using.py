"""What a program does with the plugin, in the ways that the first contract offered."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from stillhouse_steady import SteadyLLM
from stillhouse_steady.hooks import observed

import stillhouse
from stillhouse import ConfigurationError, GenerationError

CHAT = [{"role": "user", "content": "Name a river."}]


def test_a_program_makes_loads_and_asks() -> None:
    assert "steady-sync" in [info.name for info in stillhouse.available_llms()]
    assert stillhouse.get_llm("steady-sync") is SteadyLLM
    with stillhouse.create("steady-sync:big", generation_kwargs={"seed": 1}, prefix="> ") as llm:
        (output,) = llm.generate_outputs([CHAT], num_generations=2, max_new_tokens=3)
    assert output["generations"] == ["> Name a river."] * 2
    assert output["statistics"] == {"input_tokens": [3, 3], "output_tokens": [3, 3]}
    assert output["finish_reasons"] == ["length", "length"]


def test_results_come_one_by_one_and_errors_beside_them() -> None:
    with stillhouse.create("steady-async", max_concurrency=2) as llm:
        found = dict(llm.iter_outputs([CHAT, "", "a b"], on_error="yield", ordered=True))
    assert isinstance(found[1], GenerationError)
    assert found[1].kind == "invalid_request"
    assert found[2]["generations"] == ["a b"]


def test_a_coroutine_asks_too() -> None:
    async def main() -> list[str | None]:
        with stillhouse.create("steady-async") as llm:
            return [
                output["generations"][0]
                for _, output in [item async for item in llm.aiter_outputs(["a", "b"])]
            ]

    assert sorted(asyncio.run(main())) == ["a", "b"]


def test_a_wrong_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        stillhouse.create("steady-sync", prefiks="> ")
    with stillhouse.create("steady-sync") as llm, pytest.raises(ConfigurationError, match="seed"):
        llm.generate_outputs([CHAT], sed=1)


def test_settings_are_saved_and_read(tmp_path: Path) -> None:
    stillhouse.create("steady-sync", prefix="> ").save(tmp_path / "llm.yaml")
    assert stillhouse.LLM.from_file(tmp_path / "llm.yaml").dump()["prefix"] == "> "


def test_hooks_answer_and_observe() -> None:
    observed.clear()
    with stillhouse.create("steady-async") as llm:
        (output,) = llm.generate_outputs(["ask the hook"], max_new_tokens=9)
        with pytest.raises(GenerationError):
            llm.generate_outputs([""])
    assert output["generations"] == ["from the hook"]
    assert observed == ["steady 1 ['max_new_tokens'] None True", "steady 1 [] invalid_request False"]


def test_a_run_reads_and_writes_through_the_hooks(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("the Ucayali\nask the hook\n", encoding="utf-8")
    command = [
        "generate",
        f"steady:{tmp_path / 'in'}",
        "--llm",
        "steady-async",
        "-o",
        f"steady:{tmp_path / 'out'}",
    ]
    result = subprocess.run(
        [sys.executable, "-c", "from stillhouse.cli import main; main()", *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out").read_text(encoding="utf-8").splitlines() == ["the Ucayali", "from the hook"]


def test_what_is_listed_stays_readable(capsys: pytest.CaptureFixture[str]) -> None:
    from stillhouse.cli import main

    sys.argv = ["stillhouse", "show", "steady-sync", "--json"]
    with pytest.raises(SystemExit):
        main()
    shown = json.loads(capsys.readouterr().out)
    assert {"name", "fields", "parameters", "capabilities"} <= set(shown)
