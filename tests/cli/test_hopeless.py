"""A run that is hopeless stops, says why, and goes on with the same command once that is mended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import stillhouse
from stillhouse import LLM, AsyncLLM, FormattedInput, GenerateOutput, GenerationError, prepare_output
from stillhouse._execution.stopping import current_stop
from stillhouse.http import HTTPLLM
from stillhouse.jobs.runs.hopeless import HOPELESS_ROWS
from stillhouse.testing.server import Reply, ScriptedServer

from ..support import squeezed

METADATA = "Metadata-Version: 2.1\nName: stillhouse-tiny-ngram\nVersion: 0.1.0\n"
ENTRY_POINTS = "[stillhouse.llms]\ntiny-ngram = stillhouse_tiny_ngram.llm:TinyNgramLLM\n"
SOURCE = """
import pydantic
import stillhouse

CALLS = []
MENDED = []

class TinyNgramLLM(stillhouse.AsyncLLM):
    api_key: pydantic.SecretStr | None = None
    is_loading_broken: bool = False

    @property
    def model_name(self):
        return "tiny"

    def load(self):
        super().load()
        if self.is_loading_broken:
            {}["weights"]

    async def agenerate(self, input, num_generations: int = 1):
        text = input[-1]["content"]
        CALLS.append(text)
        return stillhouse.prepare_output([self._read({"choices": text} if MENDED else {})])

    def _read(self, answer):
        return answer["choices"]  # the bug
"""
BUG = SOURCE.splitlines().index('        return answer["choices"]  # the bug') + 1
FAILED = "the backend tiny-ngram 0.1.0 failed: KeyError: 'choices' (stillhouse_tiny_ngram/llm.py:" + f"{BUG})"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A backend of somebody's, installed as a package, with a bug; its module."""
    site = tmp_path / "site"
    info = site / "stillhouse_tiny_ngram-0.1.0.dist-info"
    package = site / "stillhouse_tiny_ngram"
    info.mkdir(parents=True)
    package.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (package / "__init__.py").write_text("")
    (package / "llm.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr("stillhouse.registry.registry._default", stillhouse.Registry())
    import stillhouse_tiny_ngram.llm as module  # type: ignore[import-not-found]

    yield module
    for name in ("stillhouse_tiny_ngram.llm", "stillhouse_tiny_ngram"):
        sys.modules.pop(name, None)


def prompts(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"row {number}"} for number in range(count)]


def test_a_run_stops_whose_rows_all_fail_by_a_bug_and_goes_on_once_it_is_mended(
    run: Any, rows_file: Any, read: Any, tmp_path: Path, tiny: Any
) -> None:
    output = tmp_path / "out.jsonl"
    source = rows_file(prompts(3000))
    options = ["generate", source, "--llm", "tiny-ngram", "-o", output]
    stopped = run(*options)
    assert stopped.status == 1
    tried = len(tiny.CALLS)
    assert HOPELESS_ROWS <= tried < 300
    assert f"failed: unknown {tried}\n" in squeezed(stopped.err)
    assert (
        f"all {tried} rows that were tried failed, in a way that no row causes: unknown: {FAILED}"
        in stopped.err
    )
    assert "  try  --traceback; report it to its authors; run the same command again" in stopped.err
    assert "Traceback" not in stopped.err
    assert "--retry" not in stopped.err
    assert str(tmp_path / "site") not in stopped.err
    assert not output.exists()
    assert f"run the same command again to resume and retry {tried} rows" in stopped.err

    status = run("status", output)
    assert f"to be tried again  {tried} rows, by the same command" in status.out
    assert FAILED in status.out
    again = shlex.join(
        ["stillhouse", "generate", str(source), "--llm", "tiny-ngram", "--output", str(output)]
    )
    assert f"\nto resume, run again: {again}\n" in status.out
    assert "state              stopped; run the same command again to resume\n" in status.out
    facts = json.loads(run("status", output, "--json").out)
    assert facts["messages"] == [
        {"kind": "unknown", "message": FAILED, "rows": tried, "examples": [1, 2, 3, 4, 5],
         "retry": None}
    ]  # fmt: skip
    page = Path(run("report", output).out.strip()).read_text().replace("&#39;", "'")
    assert FAILED in page
    assert (
        f'To generate them again:</p>\n<div class="copied"><pre tabindex="0">{again}</pre>'
        in page.replace("        ", "")
    )
    assert json.loads(run("report", output, "--json").out)["failures"][0]["retry"] == again

    tiny.MENDED.append(True)
    tiny.CALLS.clear()
    resumed = run(*options)
    assert resumed.status == 0
    assert f"retrying {tried} failed rows\n" in resumed.err
    assert sorted(tiny.CALLS) == sorted(row["prompt"] for row in prompts(3000))
    assert [row["generations"] for row in read(output)] == [[row["prompt"]] for row in prompts(3000)]


def test_printed_rows_stop_too(run: Any, rows_file: Any, tiny: Any) -> None:
    result = run("generate", rows_file(prompts(3000)), "--llm", "tiny-ngram", "-o", "-")
    assert result.status == 1
    assert len(tiny.CALLS) < 300
    printed = [json.loads(line) for line in result.out.splitlines()]
    assert {row["error"]["message"] for row in printed} == {FAILED}
    assert len(printed) == len(tiny.CALLS)
    assert "in a way that no row causes" in result.err
    assert "the same command" not in result.err


def test_a_few_rows_are_not_called_hopeless(run: Any, rows_file: Any, tmp_path: Path, tiny: Any) -> None:
    source = rows_file(prompts(HOPELESS_ROWS - 1))
    result = run("generate", source, "--llm", "tiny-ngram", "-o", tmp_path / "out.jsonl")
    assert result.status == 3
    assert f"19 rows, the first of them row 1: unknown: {FAILED}" in result.err
    assert re.search("generate them again: stillhouse generate .* --retry unknown\n", result.err)
    (message,) = json.loads(run("status", tmp_path / "out.jsonl", "--json").out)["messages"]
    assert message["retry"] == "--retry unknown"


def test_a_bug_while_loading_is_named_as_well(run: Any, rows_file: Any, tmp_path: Path, tiny: Any) -> None:
    options = ["--llm", "tiny-ngram", "--set", "is_loading_broken=true"]
    for arguments in ([rows_file(prompts(3)), "-o", tmp_path / "out.jsonl"], ["--prompt", "hi"]):
        result = run("generate", *arguments, *options)
        assert result.status == 1
        assert (
            "the backend tiny-ngram 0.1.0 failed: KeyError: 'weights' (stillhouse_tiny_ngram/" in result.err
        )
        assert "Traceback" not in result.err


def test_the_traceback_of_a_bug_is_printed_once_and_without_secrets(
    run: Any, rows_file: Any, tmp_path: Path, tiny: Any
) -> None:
    source = Path(tiny.__file__)
    text = source.read_text()
    source.write_text(text.replace('answer["choices"]', "answer[self.api_key.get_secret_value()]"))
    import importlib

    importlib.reload(tiny)
    result = run(
        "generate", rows_file(prompts(30)), "--llm", "tiny-ngram", "-o", tmp_path / "out.jsonl", "--traceback",
        "--set", "api_key=sk-9f3kq0z8w7x6v5u4", "--max-failures", 0,
    )  # fmt: skip
    assert result.status == 3
    assert result.err.count("Traceback (most recent call last)") == 1
    assert "in _read" in result.err
    assert "KeyError: '**********'" in result.err
    assert "sk-9f3kq0z8" not in result.err


class MoodyLLM(AsyncLLM):
    """Fails as a row says: `KIND message`. The rows `slow` wait for `let_go`."""

    asked: ClassVar[list[str]] = []
    loop: ClassVar[asyncio.AbstractEventLoop]
    gate: ClassVar[asyncio.Event]

    def load(self) -> None:
        super().load()
        self.run_on_loop(self._open())

    async def _open(self) -> None:
        type(self).loop, type(self).gate = asyncio.get_running_loop(), asyncio.Event()

    @classmethod
    def let_go(cls) -> None:
        cls.loop.call_soon_threadsafe(cls.gate.set)

    @property
    def model_name(self) -> str:
        return "moody"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        text: Any = input[-1]["content"]  # type: ignore[index, typeddict-item]
        self.asked.append(text)
        kind, _, message = text.partition(" ")
        if kind == "slow":
            with current_stop.get().watched(self.let_go):
                await self.gate.wait()
        elif kind != "fine":
            raise GenerationError(message, kind=kind)
        return prepare_output([text] * num_generations)


class EngineLLM(LLM):
    """An engine on this machine, which takes lists in an order of its own, and is broken."""

    calls: ClassVar[list[int]] = []

    @property
    def model_name(self) -> str:
        return "engine"

    def batch_key(self, input: FormattedInput) -> int | str | None:
        return len(str(input))

    def generate(self, inputs: list[FormattedInput], num_generations: int = 1) -> list[GenerateOutput]:
        self.calls.append(len(inputs))
        raise ZeroDivisionError("no GPU")


class ApiLLM(HTTPLLM):
    api_key_variable: ClassVar[str | None] = "MOODY_API_KEY"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        answer = await self.post("generate", {"prompt": input[-1]["content"]})  # type: ignore[index, typeddict-item]
        return prepare_output([answer["text"]] * num_generations)


@pytest.fixture(autouse=True)
def registered(own_registry: stillhouse.Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, cls in {"moody": MoodyLLM, "engine": EngineLLM, "api": ApiLLM}.items():
        own_registry.register(name, cls)
    monkeypatch.setenv("MOODY_API_KEY", "sk-9f3kq0z8w7x6v5u4")
    MoodyLLM.asked.clear()
    EngineLLM.calls.clear()


@pytest.fixture
def moody(run: Any, rows_file: Any, tmp_path: Path) -> Callable[..., Any]:
    """Generate for texts with the moody LLM."""

    def call(texts: list[str], *options: object) -> Any:
        source = rows_file([{"prompt": text} for text in texts])
        return run("generate", source, "--llm", "moody", "-o", tmp_path / "out.jsonl", *options)

    return call


@pytest.mark.parametrize(
    "texts",
    [
        ["schema too bad"] * 400,
        ["context_length too bad"] * 400,
        ["content_filter too bad"] * 400,
        ["truncated too bad"] * 400,
        [f"invalid_request {chr(97 + number % 26) * (number + 1)}" for number in range(400)],
        ["invalid_request no", "unknown no"] * 200,
    ],
    ids=["schema", "length", "filter", "truncated", "different", "two kinds"],
)
def test_rows_that_fail_by_themselves_stop_no_run(moody: Any, texts: list[str]) -> None:
    assert moody(texts).status == 3
    assert len(MoodyLLM.asked) == len(texts)


@pytest.mark.parametrize(
    "texts",
    [
        [f"invalid_request unknown parameter 'p{number}' ({number})" for number in range(400)],
        ["server status 500", "timeout no answer", "connection it broke", "rate_limit wait"] * 100,
        ["schema the form is wrong", "invalid_request no"] * 200,
    ],
    ids=["quotes and numbers", "passing kinds", "between rows of the other kind"],
)
def test_rows_that_fail_alike_stop_the_run(moody: Any, texts: list[str]) -> None:
    result = moody(texts)
    assert result.status == 1, result.err
    assert "in a way that no row causes" in result.err
    assert len(MoodyLLM.asked) < 300


def test_rows_that_fail_fast_do_not_condemn_the_slow_ones(
    moody: Any, own_registry: stillhouse.Registry
) -> None:
    class Watcher:
        failed = 0

        @stillhouse.hookimpl
        def after_generate(self, error: Any) -> None:
            self.failed += error is not None
            if self.failed == HOPELESS_ROWS + 5:
                MoodyLLM.let_go()

    own_registry.register_hooks("watcher", Watcher())
    result = moody(["invalid_request no"] * 30 + ["slow"] * 500)
    assert result.status == 3
    assert "done 500\n" in squeezed(result.err)


def test_rows_that_a_cache_answered_are_no_sign_of_hope(
    moody: Any, own_registry: stillhouse.Registry
) -> None:
    class Cache:
        @stillhouse.hookimpl
        def before_generate(self, input: Any) -> Any:
            return prepare_output(["kept"]) if input[-1]["content"] == "fine" else None

    own_registry.register_hooks("cache", Cache())
    assert moody(["fine", "unknown broken"] * 200).status == 1


def test_a_limit_on_failures_stops_and_the_same_command_goes_on_with_the_other_rows(
    moody: Any, read: Any, tmp_path: Path
) -> None:
    texts = ["fine", *["schema a", "fine", "invalid_request b"] * 100]
    stopped = moody(texts, "--max-failures", 3, "--max-concurrency", 1)
    assert stopped.status == 1
    assert "and --max-failures is 3: " in stopped.err
    assert "--retry invalid_request,schema generates the failed ones again" in stopped.err
    first = list(MoodyLLM.asked)
    assert len(first) < 20
    MoodyLLM.asked.clear()
    assert moody(texts, "--max-failures", 0).status == 3
    assert first + MoodyLLM.asked == texts or sorted(first + MoodyLLM.asked) == sorted(texts)
    assert [row["error"] is None for row in read(tmp_path / "out.jsonl")] == [
        text == "fine" for text in texts
    ]


def test_what_was_not_sent_when_the_limit_was_reached_is_not_sent(moody: Any) -> None:
    texts = [f"schema {number}" if number == 0 else "slow" for number in range(500)]
    result = moody(texts, "--max-failures", 1, "--max-concurrency", 8)
    assert result.status == 1
    asked = len(MoodyLLM.asked)  # the one that failed, and those in flight then, at most eight
    assert 1 < asked <= 9
    assert f"done {asked - 1}\n" in squeezed(result.err)


def test_one_failure_is_enough_if_it_is_said_so(moody: Any) -> None:
    result = moody(["fine", "schema a"] + ["fine"] * 500, "--max-failures", 1, "--max-concurrency", 1)
    assert result.status == 1
    assert "1 row failed, and --max-failures is 1: schema: a" in result.err
    assert len(MoodyLLM.asked) < 20


def test_no_number_of_failures_stops_a_run_with_the_limit_0(moody: Any) -> None:
    assert moody(["unknown broken"] * 300, "--max-failures", 0).status == 3
    assert len(MoodyLLM.asked) == 300


@pytest.mark.parametrize("value", ["-1", "x", "1.5"])
def test_a_wrong_limit_is_usage(moody: Any, value: str) -> None:
    result = moody(["fine"], "--max-failures", value)
    assert result.status == 2
    assert not MoodyLLM.asked


@pytest.mark.parametrize("options", [[], ["--batch"]])
def test_an_engine_that_is_broken_stops_the_run(
    run: Any, rows_file: Any, tmp_path: Path, options: list[str]
) -> None:
    source = rows_file(prompts(1000))
    result = run("generate", source, "--llm", "engine", "-o", tmp_path / "out.jsonl", *options)
    assert result.status == 1
    assert "the backend engine failed: ZeroDivisionError: no GPU (tests/cli/test_hopeless.py:" in result.err
    assert sum(EngineLLM.calls) < 200


# What is sent and answered


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer(lambda path, body: {"text": body["prompt"]})
    yield server
    server.close()


@pytest.fixture
def api(run: Any, rows_file: Any, tmp_path: Path, server: ScriptedServer) -> Callable[..., Any]:
    def call(count: int, *options: object) -> Any:
        return run(
            "generate", rows_file(prompts(count)), "--llm", "api:m", "-o", tmp_path / "out.jsonl",
            "--set", f"base_url={server.origin}/v1?key=sk-9f3kq0z8w7x6v5u4", *options,
        )  # fmt: skip

    return call


@pytest.mark.parametrize(
    ("reply", "said", "most"),
    [
        (Reply(400, {"error": {"message": "Unsupported parameter: 'top_k'"}}), "Unsupported parameter", 200),
        (Reply(404, {"error": {"message": "The model `m` does not exist"}}), "does not exist", 64),
        (Reply(301, b"", {"location": "https://example.com/"}), "redirects", 64),
    ],
    ids=["parameter", "model", "redirect"],
)
def test_what_a_server_refuses_of_every_row_stops_the_run(
    api: Any, server: ScriptedServer, reply: Reply, said: str, most: int
) -> None:
    server.always = reply
    result = api(1000)
    assert result.status == 1
    assert said in result.err
    assert len(server.requests) <= most
    server.reset()
    assert api(1000).status == 0
    # A request that the first run left behind may be read late.
    assert len({request.body["prompt"] for request in server.requests}) == 1000


def test_verbose_shows_what_is_sent_and_answered_without_secrets(api: Any, server: ScriptedServer) -> None:
    server.script = [Reply(body={"text": "\x1b[2J" + "long " * 5000 + "sk-9f3kq0z8w7x6v5u4"})]
    result = api(3, "--verbose", "--max-concurrency", 1)
    assert result.status == 0
    lines = [line for line in result.err.splitlines() if line.startswith("#")]
    assert lines[0].startswith(f"#1 > POST {server.origin}/v1/generate?key=********** ")
    assert '"row 0"' in lines[0]
    assert lines[1].startswith("#1 < 200 ")
    assert lines[1].endswith("bytes)")
    assert len(lines) == 6
    assert '"row 2"' in lines[5]
    assert all(len(line) < 2200 and line.isprintable() for line in lines)
    assert "sk-9f3kq0z8" not in result.err


def test_verbose_shows_what_goes_to_an_engine_and_what_comes_back(moody: Any) -> None:
    result = moody(["fine", "schema no"], "--verbose", "--max-concurrency", 1)
    lines = [line for line in result.err.splitlines() if "MoodyLLM, input" in line]
    assert len(lines) == 4
    assert lines[0].startswith("> MoodyLLM, input 1: [[{")
    assert '"fine"' in lines[0]
    assert "< MoodyLLM, input 2: schema: no" in lines


def test_messages_on_a_terminal_stand_above_the_line_that_changes(rows_file: Any, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    arguments = [
        "generate", rows_file(prompts(4)), "--llm", "echo", "--set", "latency=0.3", "--verbose",
        "-o", tmp_path / "out.jsonl",
    ]  # fmt: skip
    command = [sys.executable, "-c", "from stillhouse.cli import main; main()", *map(str, arguments)]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, command)
    printed = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while block := os.read(terminal, 1 << 16):
            printed += block
    assert os.waitpid(child, 0)[1] == 0
    assert b"0/4" in printed
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode()).splitlines()
    assert sum(line.startswith("> EchoLLM, input ") for line in lines) == 4
    assert sum(line.startswith("< EchoLLM, input ") for line in lines) == 4


# What nobody counted, and what was done before


def test_tokens_that_nobody_reported_are_unknown(moody: Any, run: Any, tmp_path: Path) -> None:
    result = moody(["fine", "schema no"])
    table = dict(line.split("  ", 1) for line in result.err.splitlines() if "  " in line)
    assert table["input tokens"].strip() == "unknown"
    assert table["output tokens"].strip() == "unknown"
    assert table["answers cut off"].strip() == "unknown, the backend gives no finish reasons"
    facts = json.loads(run("status", tmp_path / "out.jsonl", "--json").out)
    names = ("input_tokens", "output_tokens", "cached_tokens", "written_tokens", "cost")
    assert [facts[name] for name in names] == [None] * 5
    assert facts["answers"] == {"total": 1, "cut": None, "empty": 0, "refused": None, "filtered": None}
    assert "input tokens       unknown\n" in run("status", tmp_path / "out.jsonl").out
    page = Path(run("report", tmp_path / "out.jsonl").out.strip()).read_text()
    assert "<dt>Input tokens</dt><dd>unknown</dd>" in page
    assert "tokens/s" not in page


def test_this_session_and_the_whole_run_are_kept_apart(run: Any, rows_file: Any, tmp_path: Path) -> None:
    options = [
        "generate", rows_file([{"prompt": "a b"}, {"prompt": "c d e"}, {"text": "x"}]), "--llm", "echo",
        "-o", tmp_path / "out.jsonl",
    ]  # fmt: skip
    assert "whole run" not in run(*options, "--limit", 1).err
    result = run(*options)
    table = {line[:26].strip(): line[26:].split() for line in result.err.splitlines()}
    assert table[""] == ["whole", "run", "this", "session"]
    assert table["rows"] == ["3", "2"]
    assert table["done"] == ["2", "1"]
    assert table["failed: invalid_input"] == ["1", "1"]
    assert table["finished before"] == ["1"]
    assert table["input tokens"] == ["5", "3"]
    page = Path(run("report", tmp_path / "out.jsonl").out.strip()).read_text()
    page = re.sub(r' data-label="\w+"', "", page)
    assert re.findall(r"<td>(\d)</td><td>(\d)</td><td>\w*</td><td>complete</td>", page) == [
        ("1", "0"),
        ("1", "1"),
    ]


class EndingLLM(AsyncLLM):
    @property
    def model_name(self) -> str:
        return "ending"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        reason, _, text = str(input[-1]["content"]).partition(" ")  # type: ignore[index, typeddict-item]
        output = prepare_output([text or None], finish_reasons=[reason])
        if reason == "tool_calls":
            output["tool_calls"] = [
                [{"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}]
            ]
        return output


def test_answers_that_were_cut_empty_refused_or_filtered_are_counted(
    run: Any, rows_file: Any, tmp_path: Path, own_registry: stillhouse.Registry
) -> None:
    own_registry.register("ending", EndingLLM)
    texts = [
        *["stop yes"] * 5, *["length half"] * 3, "length", "stop", "stop  ", "refusal", "refusal", "content_filter",
        "tool_calls",
    ]  # fmt: skip
    output = tmp_path / "out.jsonl"
    source = rows_file([{"prompt": text} for text in texts])
    result = run("generate", source, "--llm", "ending", "-o", output)
    assert "ended: length 4 (26.7%), cut off: raise max_new_tokens\n" in squeezed(result.err)
    assert "ended: refusal 2 (13.3%), refused by the model\n" in squeezed(result.err)
    assert "ended: content_filter 1 (6.7%), filtered by the provider\n" in squeezed(result.err)
    assert "empty answers 3\n" in squeezed(result.err)
    counts = {"total": 15, "cut": 4, "empty": 3, "refused": 2, "filtered": 1}
    assert json.loads(run("status", output, "--json").out)["answers"] == counts
    status = run("status", output).out
    assert "cut off: raise max_new_tokens" in status
    page = Path(run("report", output).out.strip()).read_text()
    assert "<dt>cut</dt><dd>4 (26.7%) " in page
