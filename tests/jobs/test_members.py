"""What the members of a composite LLM finished is not asked for again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import LLM, AsyncLLM, FormattedInput, GenerateOutput, GenerationError, prepare_output
from stillhouse.cli.app import app

ASKED: Counter[str] = Counter()
FAILS: dict[str, Any] = {}


class MemberLLM(AsyncLLM):
    name: str

    @property
    def model_name(self) -> str:
        return self.name

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        text = f"{self.name} {input[-1]['content']}"  # type: ignore[index]
        ASKED[text] += 1
        if text in FAILS:
            raise GenerationError("broken", kind=FAILS[text])
        return prepare_output([f"{text} #{ASKED[text]}"] * num_generations)


class BothLLM(AsyncLLM):
    """Puts together what all its members say."""

    members: list[LLM]

    @property
    def model_name(self) -> str:
        return "both"

    def load(self) -> None:
        super().load()
        for member in self.members:
            member.load()

    def unload(self) -> None:
        for member in self.members:
            member.unload()
        super().unload()

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        said = []
        for member in self.members:
            assert isinstance(member, AsyncLLM)
            (output,) = await member.agenerate_outputs([input])
            said.append(output["generations"][0])
        return prepare_output([" + ".join(map(str, said))] * num_generations)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = stillhouse.Registry(entry_points=())
    registry.register("member", MemberLLM)
    registry.register("both", BothLLM)
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)
    ASKED.clear()
    FAILS.clear()


@pytest.fixture
def generate(tmp_path: Path) -> Any:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in "abca"))
    inner = [{"llm": "member", "name": name} for name in ("one", "two")]
    nested = {
        "llm": "both",
        "members": [{"llm": "both", "members": inner}, {"llm": "member", "name": "three"}],
    }
    twice = {"llm": "both", "members": [inner[0], *inner]}
    for name, data in (("flat", {"llm": "both", "members": inner}), ("nested", nested), ("twice", twice)):
        (tmp_path / f"{name}.json").write_text(json.dumps(data))

    def call(*options: str, config: str = "flat") -> tuple[int, list[Any]]:
        output = tmp_path / "out.jsonl"
        arguments = [
            "generate",
            tmp_path / "rows.jsonl",
            "--config",
            tmp_path / f"{config}.json",
            "-o",
            output,
        ]
        with pytest.raises(SystemExit) as exited:
            app(
                [str(item) for item in (*arguments, "--max-concurrency", 2, *options)], prog_name="stillhouse"
            )
        lines = output.read_text().splitlines() if output.exists() else []
        return int(exited.value.code or 0), [json.loads(line)["generations"] for line in lines]

    return call


@pytest.mark.parametrize("config", ["flat", "nested"])
def test_retry_calls_only_the_failed_member(generate: Any, config: str) -> None:
    FAILS["two b"] = "server"
    status, rows = generate(config=config)
    assert (status, rows[1]) == (3, None)
    assert ASKED["one b"] == ASKED["two b"] == 1
    FAILS.clear()
    status, rows = generate("--retry", "server", config=config)
    assert status == 0
    assert ASKED["one b"] == 1
    assert ASKED["two b"] == 2
    assert rows[1][0].startswith("one b #1 + two b #2")


def test_resumed_run_reuses_the_answers_of_members(generate: Any) -> None:
    FAILS["two b"] = "authentication"
    status, rows = generate()
    assert (status, rows) == (1, [])
    FAILS.clear()
    status, rows = generate()
    assert status == 0
    assert ASKED["one b"] == 1
    assert rows[1] == ["one b #1 + two b #2"]


def test_member_called_twice_for_a_row_has_two_stored_answers(generate: Any) -> None:
    FAILS["two b"] = "server"
    generate(config="twice")
    FAILS.clear()
    _, rows = generate("--retry", "server", config="twice")
    assert ASKED["one b"] == 2
    assert sorted(rows[1][0].split(" + ")) == ["one b #1", "one b #2", "two b #2"]


def test_member_answer_is_stored_once(generate: Any, tmp_path: Path) -> None:
    import sqlite3

    FAILS["two b"] = "authentication"
    for _ in range(3):
        generate()
    connection = sqlite3.connect(tmp_path / "out.jsonl.run.db")
    assert connection.execute("SELECT count(*) FROM members WHERE row = 1").fetchone() == (1,)
    connection.close()


def test_equal_rows_have_separate_member_answers(generate: Any) -> None:
    _, rows = generate()
    assert ASKED["one a"] == 2
    assert sorted(rows[number][0] for number in (0, 3)) == ["one a #1 + two a #1", "one a #2 + two a #2"]


def test_member_answers_of_finished_rows_are_deleted(generate: Any, tmp_path: Path) -> None:
    import sqlite3

    FAILS["two b"] = "server"
    generate()
    connection = sqlite3.connect(tmp_path / "out.jsonl.run.db")
    assert connection.execute("SELECT DISTINCT row FROM members").fetchall() == [(1,)]
    connection.close()
