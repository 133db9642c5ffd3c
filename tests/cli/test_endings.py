"""A command ends with status 0 only when its work is done, and prints only what is its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stillhouse import hookimpl

from .conftest import read_rows, write_rows
from .test_signals import PATIENCE

BACKENDS = Path(__file__).with_name("odd_backends.py")

ENDINGS = ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError"]


def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BACKENDS), *map(str, arguments)],
        capture_output=True, text=True, timeout=PATIENCE, **options,
    )  # fmt: skip


@pytest.mark.parametrize("by", ENDINGS)
@pytest.mark.parametrize("where", ["init", "load", "generate", "unload"])
def test_a_backend_that_ends_the_program_is_an_error(tmp_path: Path, where: str, by: str) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    result = command(
        "generate", source, "--llm", "ending", "--set", f"where={where}", "--set", f"by={by}",
        "-o", tmp_path / "out.jsonl",
    )  # fmt: skip
    assert result.returncode == (3 if where == "generate" else 1), result.stderr
    assert by in result.stderr
    if where == "generate":
        what = f"the backend ending failed: RuntimeError: {by}: {0 if by == 'SystemExit' else ''}"
        messages = [row["error"]["message"] for row in read_rows(tmp_path / "out.jsonl")]
        assert [message.startswith(what) for message in messages] == [True, True]


class Ending:
    """Ends the program in a hook."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @hookimpl
    def before_generate(self) -> None:
        raise self.error

    @hookimpl
    def after_generate(self) -> None:
        raise self.error

    @hookimpl
    def open_reader(self) -> None:
        raise self.error

    @hookimpl
    def open_writer(self) -> None:
        raise self.error

    @hookimpl
    def output_path(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error", [SystemExit(0), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()]
)
def test_a_hook_that_ends_the_program_fails_like_any_other(
    run: Any, own_registry: Any, rows_file: Any, tmp_path: Path, caplog: Any, error: BaseException
) -> None:
    own_registry.register_hooks("ending", Ending(error))
    output = tmp_path / "out.jsonl"
    result = run("generate", rows_file([{"prompt": "a"}]), "--llm", "echo", "-o", output)
    assert result.status == 0, result.err
    assert [row["generations"] for row in read_rows(output)] == [["a"]]
    told = {message.split()[2] for message in caplog.messages if "of the plugin ending failed" in message}
    assert told == {"before_generate", "after_generate", "open_reader", "open_writer", "output_path"}


class EndingReader:
    schema = None
    share_read = None

    def __iter__(self) -> Any:
        raise SystemExit(0)
        yield

    def digest(self) -> str:
        return ""

    def close(self) -> None:
        pass


class Reading:
    @hookimpl
    def open_reader(self, source: str) -> Any:
        return EndingReader()


@pytest.mark.parametrize("target", ["out.jsonl", "-"])
def test_a_reader_that_ends_the_program_is_an_error(
    run: Any, own_registry: Any, tmp_path: Path, monkeypatch: Any, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    own_registry.register_hooks("reading", Reading())
    result = run("generate", "odd:in", "--llm", "echo", "-o", target)
    assert result.status == 1
    assert "the reader of the plugin reading failed: SystemExit: 0" in result.err
    assert not (tmp_path / "out.jsonl").exists()


class Nonsense:
    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    @hookimpl
    def before_generate(self) -> Any:
        return self.answers.get("before_generate")

    @hookimpl
    def open_reader(self) -> Any:
        return self.answers.get("open_reader")

    @hookimpl
    def open_writer(self) -> Any:
        return self.answers.get("open_writer")

    @hookimpl
    def output_path(self) -> Any:
        return self.answers.get("output_path")


@pytest.mark.parametrize("hook", ["before_generate", "open_reader", "open_writer", "output_path"])
@pytest.mark.parametrize("answer", [5, "text", {"generations": 1}, object()])
def test_a_hook_that_returns_nonsense_is_named_and_passed_over(
    run: Any, own_registry: Any, rows_file: Any, tmp_path: Path, caplog: Any, hook: str, answer: Any
) -> None:
    own_registry.register_hooks("nonsense", Nonsense({hook: answer}))
    output = tmp_path / "out.jsonl"
    result = run("generate", rows_file([{"prompt": "a"}]), "--llm", "echo", "-o", output)
    assert result.status == 0, result.err
    assert [row["generations"] for row in read_rows(output)] == [["a"]]
    assert any(f"the hook {hook} of the plugin nonsense failed" in message for message in caplog.messages)


class Changing:
    """Changes whatever it is shown."""

    @hookimpl
    def before_generate(self, input: Any, arguments: Any) -> None:
        input[0]["content"] = "changed"
        input.append({"role": "user", "content": "added"})
        arguments["temperature"] = 9

    @hookimpl
    def after_generate(self, input: Any, output: Any, error: Any) -> None:
        input.clear()
        if output is not None:
            output["generations"][0] = "changed"
            output["statistics"].clear()
            output["added"] = ["x"]
        if error is not None:
            error.message, error.kind = "changed", "server"


def test_a_hook_that_changes_what_it_is_shown_changes_nothing(
    run: Any, own_registry: Any, rows_file: Any, tmp_path: Path
) -> None:
    source = rows_file([{"prompt": "a"}, {"prompt": 5}])
    outputs = [tmp_path / "plain.jsonl", tmp_path / "changed.jsonl"]
    results = [run("generate", source, "--llm", "echo", "-o", outputs[0])]
    own_registry.register_hooks("changing", Changing())
    results.append(run("generate", source, "--llm", "echo", "-o", outputs[1]))
    assert [result.status for result in results] == [3, 3]
    plain, changed = map(read_rows, outputs)
    for row in (*plain, *changed):
        row.pop("statistics")
    assert changed == plain


def test_only_the_results_are_on_standard_output(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    result = command("generate", source, "--llm", "printing", "-o", "-")
    assert result.returncode == 0, result.stderr
    assert [json.loads(line)["generations"] for line in result.stdout.splitlines()] == [["a"], ["b"]]
    for what in ("in load", "in unload", "in generate", "by C", "by a program", "as bytes"):
        assert f"PRINTED {what}" in result.stderr
    once = command("generate", "--prompt", "hello", "--llm", "printing")
    assert once.stdout == "hello\n"


PLUGIN = """
import os, sys
print("PRINTED at import")
os.write(1, b"PRINTED by C at import\\n")
import stillhouse

@stillhouse.hookimpl
def output_path(target):
    print("PRINTED in a hook")
"""


def test_what_a_plugin_prints_at_import_is_not_in_json(tmp_path: Path) -> None:
    package = tmp_path / "printing-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: printing\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[stillhouse.hooks]\nprinting = printing_plugin\n")
    (tmp_path / "printing_plugin.py").write_text(PLUGIN)
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}])
    import os

    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    output = tmp_path / "out.jsonl"
    result = command("generate", source, "--llm", "echo", "-o", output, env=env)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert "PRINTED at import" in result.stderr
    for arguments in (("status", output, "--json"), ("check", "--json"), ("batches", output, "--json")):
        result = command(*arguments, env=env)
        assert "PRINTED by C at import" in result.stderr
        json.loads(result.stdout)


def test_a_settings_file_that_sends_the_key_elsewhere_is_told(tmp_path: Path) -> None:
    import os

    settings = tmp_path / "settings.json"
    env = {**os.environ, "ODD_API_KEY": "key-of-mine-1234"}
    told = f"{settings} names the address http://127.0.0.1:9/v1: the key in ODD_API_KEY is sent there"
    for address, extra, key, is_told in (
        ("http://127.0.0.1:9/v1", {}, True, True),
        ("http://127.0.0.1:9/v1", {}, False, False),
        ("http://127.0.0.1:9/v1", {"api_key": "its own"}, True, False),
        ("http://usual.example", {}, True, False),
    ):
        settings.write_text(json.dumps({"llm": "remote", "base_url": address, "retry_timeout": 0, **extra}))
        result = command(
            "generate", "--prompt", "a", "--config", settings, "--param", "nope=1",
            env=env if key else {**os.environ},
        )  # fmt: skip
        assert (told in result.stderr) == is_told, result.stderr
        assert "key-of-mine" not in result.stderr
