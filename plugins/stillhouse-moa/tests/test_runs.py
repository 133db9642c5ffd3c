"""Bulk runs, with members that ask a server: the example of the README, empty answers, a killed process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse.testing import ScriptedServer

README = Path(__file__).parents[1] / "README.md"


class Api:
    """OpenAI's API with a few models; it counts what each is asked.

    Attributes:
        contents: the message of a model, instead of a text that names it.
        aggregator_asked: set when the model `last` is asked, whose answer waits for `go_on`.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.systems: list[str] = []
        self.contents: dict[str, dict[str, Any]] = {}
        self.aggregator_asked, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.server = ScriptedServer(self.respond)

    def respond(self, path: str, body: Any) -> Any:
        model = body["model"]
        self.asked[model] += 1
        if model == "last":
            self.systems.append(body["messages"][0]["content"])
            self.aggregator_asked.set()
            self.go_on.wait(60)
        message = self.contents.get(model, {"content": f"from {model}"})
        return {
            "id": "1",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
        }


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()
    yield made
    made.go_on.set()
    made.server.close()


def command(api: Api, folder: Path, config: str, *options: str) -> subprocess.Popen[str]:
    (folder / "moa.yaml").write_text(config)
    (folder / "rows.jsonl").write_text('{"prompt": "Name a river."}\n{"prompt": "Name a lake."}\n')
    environment = {name: text for name, text in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": f"{api.server.origin}/v1",
        "STILLHOUSE_DISABLE_PLUGINS": "stillhouse-cache",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    arguments = ["generate", "rows.jsonl", "--config", "moa.yaml", "-o", "out.jsonl", *options]
    return subprocess.Popen(
        [sys.executable, "-c", "from stillhouse.cli import main; main()", *arguments],
        cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def rows(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


CONFIG = """\
llm: moa
aggregator_llm: {llm: openai, model: last}
proposers_llms:
  - {llm: openai, model: a}
  - {llm: openai, model: b}
"""


def test_the_example_of_the_readme_runs(api: Api, tmp_path: Path) -> None:
    config = re.search(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    assert config is not None
    process = command(api, tmp_path, config[1], "--set", "rounds=2")
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0, told
    models = re.findall(r"model: (\S+)", config[1])
    assert len(models) == 3
    assert api.asked == {models[0]: 2, models[1]: 4, models[2]: 4}
    for row in rows(tmp_path):
        assert row["generations"] == [f"from {models[0]}"]
        assert row["statistics"] == {"input_tokens": [50], "output_tokens": [10]}
        assert [entry["llm"] for entry in row["member_usage"][0]] == ["openai"] * 3


@pytest.mark.parametrize(
    "message", [{"content": None}, {"content": ""}, {"content": None, "reasoning_content": "Hm."}]
)
def test_a_proposer_that_says_nothing_takes_no_row_along(
    api: Api, tmp_path: Path, message: dict[str, Any]
) -> None:
    api.contents["a"] = message
    told, _ = command(api, tmp_path, CONFIG).communicate(timeout=60)
    for row in rows(tmp_path):
        assert row["generations"] == ["from last"], told
        assert [note["member"] for note in row["missing_proposals"][0]] == ["proposers_llms.0"]
    assert all(system.endswith("Drafts:\n\n1. from b") for system in api.systems)
    api.contents["b"] = message
    process = command(api, tmp_path, CONFIG, "--restart")
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 3, told
    assert all("none of 2 proposers answered" in row["error"]["message"] for row in rows(tmp_path))


def test_a_killed_run_pays_no_proposer_twice(api: Api, tmp_path: Path) -> None:
    api.go_on.clear()
    process = command(api, tmp_path, CONFIG, "--max-concurrency", "1")
    try:
        assert api.aggregator_asked.wait(60)
        assert api.asked == {"a": 1, "b": 1, "last": 1}
    finally:
        process.kill()
        process.communicate(timeout=60)
    api.go_on.set()
    told, _ = command(api, tmp_path, CONFIG).communicate(timeout=60)
    assert [row["generations"] for row in rows(tmp_path)] == [["from last"]] * 2, told
    assert (api.asked["a"], api.asked["b"]) == (2, 2)
    assert rows(tmp_path)[0]["statistics"] == {"input_tokens": [30], "output_tokens": [6]}


@pytest.mark.parametrize("ceiling", ["--max-tokens-total=1000", "--max-cost=1"])
def test_a_ceiling_is_refused_without_advice_that_leads_nowhere(
    api: Api, tmp_path: Path, ceiling: str
) -> None:
    process = command(api, tmp_path, CONFIG, ceiling)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 2, told
    assert "no ceiling can be held with MixtureOfAgentsLLM" in told
    assert "--param" not in told
    estimated, _ = command(api, tmp_path, CONFIG, "--estimate").communicate(timeout=60)
    assert "no bound" in estimated
    assert "--param" not in estimated
    assert not api.asked
