"""`stillhouse generate`, on files that people have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import AsyncLLM, FormattedInput, GenerateOutput, GenerationError, prepare_output

from ..support import squeezed

OUTPUT_COLUMNS = ["generations", "statistics", "finish_reasons", "model_name", "error"]


class KeyRefusedLLM(AsyncLLM):
    """Answers one row, and then meets an error that every further row would meet."""

    asked: int = 0

    @property
    def model_name(self) -> str:
        return "refused"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        self.asked += 1
        if self.asked > 1:
            raise GenerationError("the key was refused", kind="authentication", hint="set ACME_KEY")
        return prepare_output(["first"])


def test_every_row_comes_back_in_order_with_its_columns(
    run: Any, rows_file: Any, read: Any, tmp_path: Path
) -> None:
    rows = [{"id": number, "prompt": f"question {number}"} for number in range(200)]
    source = rows_file(rows)
    result = run("generate", source, "--llm", "echo", "--set", "latency=0.001", "-o", tmp_path / "out.jsonl")
    assert result.status == 0
    written = read(tmp_path / "out.jsonl")
    assert [row["id"] for row in written] == list(range(200))
    assert written[7] == {
        "id": 7,
        "prompt": "question 7",
        "generations": ["question 7"],
        "statistics": {"input_tokens": [2], "output_tokens": [2]},
        "finish_reasons": ["stop"],
        "model_name": "echo",
        "error": None,
    }
    assert list(written[0])[-5:] == OUTPUT_COLUMNS
    assert not (tmp_path / "out.jsonl.partial").exists()
    assert "rows 200" in squeezed(result.err)


def test_a_row_that_cannot_be_read_fails_alone_with_its_line(
    run: Any, rows_file: Any, read: Any, tmp_path: Path
) -> None:
    source = rows_file(
        [
            {"prompt": "one"},
            '{"prompt": broken',
            "",
            {"text": "no column that is a prompt"},
            {"prompt": 7},
            "[1, 2]",
            {"messages": []},
            {"messages": [{"content": "no role"}]},
            '{"prompt": NaN}',
            {"prompt": "last"},
        ]
    )
    result = run("generate", source, "--llm", "echo", "-o", tmp_path / "out.jsonl")
    assert result.status == 3
    assert "failed: invalid_input 7" in squeezed(result.err)
    written = read(tmp_path / "out.jsonl")
    assert [row["generations"] for row in written] == [["one"], *[None] * 7, ["last"]]
    messages = [row["error"]["message"] for row in written[1:-1]]
    assert [message.partition(":")[0] for message in messages] == [
        "line 2", "line 4", "line 5", "line 6", "line 7", "line 8", "line 9",
    ]  # fmt: skip
    assert {row["error"]["kind"] for row in written[1:-1]} == {"invalid_input"}
    assert "character 12" in messages[0]
    assert "its columns are: text" in messages[1]
    assert "a number" in messages[2]


def test_bytes_that_are_no_utf8_fail_alone(run: Any, read: Any, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b'\xef\xbb\xbf{"prompt": "with a mark"}\n{"prompt": "\xff"}\n{"prompt": "fine"}\n')
    assert run("generate", source, "--llm", "echo", "-o", tmp_path / "out.jsonl").status == 3
    written = read(tmp_path / "out.jsonl")
    assert [row["generations"] for row in written] == [["with a mark"], None, ["fine"]]
    assert "UTF-8" in written[1]["error"]["message"]


def test_half_a_surrogate_pair_is_kept(run: Any, rows_file: Any, read: Any, tmp_path: Path) -> None:
    assert (
        run(
            "generate", rows_file(['{"prompt": "\\ud800"}']), "--llm", "echo", "-o", tmp_path / "out.jsonl"
        ).status
        == 0
    )
    assert read(tmp_path / "out.jsonl")[0]["generations"] == ["\ud800"]


def test_a_failed_generation_fails_alone_with_its_kind(
    run: Any, rows_file: Any, read: Any, tmp_path: Path
) -> None:
    source = rows_file([{"prompt": f"row {number}"} for number in range(300)])
    result = run(
        "generate", source, "--llm", "echo", "--set", "failure_rate=0.3",
        "--set", "failure_kind=timeout", "-o", tmp_path / "out.jsonl",
    )  # fmt: skip
    assert result.status == 3
    written = read(tmp_path / "out.jsonl")
    failed = [row for row in written if row["error"]]
    assert len(written) == 300
    assert 30 < len(failed) < 200
    assert {row["error"]["kind"] for row in failed} == {"timeout"}
    assert f"failed: timeout {len(failed)}" in squeezed(result.err)


def test_an_error_that_all_rows_would_meet_stops_the_run(
    run: Any, rows_file: Any, own_registry: stillhouse.Registry, tmp_path: Path
) -> None:
    own_registry.register("refused", KeyRefusedLLM)
    source = rows_file([{"prompt": "x"}] * 1000)
    result = run("generate", source, "--llm", "refused", "--max-concurrency", 1, "-o", tmp_path / "out.jsonl")
    assert result.status == 1
    assert "the key was refused\n  try  set ACME_KEY" in result.err
    assert "1 finished row is saved in" in result.err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("columns", "options", "expected"),
    [
        ({"messages": [{"role": "user", "content": "chat"}], "prompt": "p"}, [], "chat"),
        ({"messages": '[{"role": "user", "content": "text"}]'}, [], "text"),
        ({"prompt": "p", "instruction": "i"}, [], "p"),
        ({"instruction": "i"}, [], "i"),
        ({"prompt": "p", "name": "Ada"}, ["--template", "Hello {{ name }}"], "Hello Ada"),
        ({"prompt": "p"}, ["--raw"], "p"),
    ],
)
def test_columns_and_options_determine_the_prompt(
    run: Any,
    rows_file: Any,
    read: Any,
    tmp_path: Path,
    columns: dict[str, Any],
    options: list[str],
    expected: str,
) -> None:
    assert (
        run("generate", rows_file([columns]), "--llm", "echo", *options, "-o", tmp_path / "o.jsonl").status
        == 0
    )
    assert read(tmp_path / "o.jsonl")[0]["generations"] == [expected]


class WitnessLLM(AsyncLLM):
    """Answers with its input as JSON."""

    capabilities = frozenset({"chat", "raw_prompt"})

    @property
    def model_name(self) -> str:
        return "witness"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        return prepare_output([json.dumps(input)] * num_generations)


def test_a_system_message_goes_before_a_chat_that_has_none(
    run: Any, rows_file: Any, read: Any, own_registry: stillhouse.Registry, tmp_path: Path
) -> None:
    own_registry.register("witness", WitnessLLM)
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "b"}]
    source = rows_file([{"prompt": "a"}, {"messages": own}])
    run("generate", source, "--llm", "witness", "--system", "be brief", "-o", tmp_path / "out.jsonl")
    sent = [json.loads(row["generations"][0]) for row in read(tmp_path / "out.jsonl")]
    assert sent == [[{"role": "system", "content": "be brief"}, {"role": "user", "content": "a"}], own]


def test_raw_sends_a_text(
    run: Any, rows_file: Any, read: Any, own_registry: stillhouse.Registry, tmp_path: Path
) -> None:
    own_registry.register("witness", WitnessLLM)
    run("generate", rows_file([{"prompt": "a"}]), "--llm", "witness", "--raw", "-o", tmp_path / "out.jsonl")
    assert read(tmp_path / "out.jsonl")[0]["generations"] == ['"a"']


def test_a_missing_column_of_a_template_fails_its_row(
    run: Any, rows_file: Any, read: Any, tmp_path: Path
) -> None:
    source = rows_file([{"name": "Ada"}, {"nom": "Ada"}])
    assert (
        run(
            "generate", source, "--llm", "echo", "--template", "{{ name }}", "-o", tmp_path / "o.jsonl"
        ).status
        == 3
    )
    rows = read(tmp_path / "o.jsonl")
    assert rows[0]["generations"] == ["Ada"]
    assert "the row has no name" in rows[1]["error"]["message"]


def test_csv_rows(run: Any, read: Any, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_bytes(
        b'\xef\xbb\xbfid,prompt\n1,"two\nlines"\n\n2,a,b\n3,\xff\n4,"' + b"long " * 40_000 + b'"\n5,end\n'
    )
    assert run("generate", source, "--llm", "echo", "-o", tmp_path / "out.jsonl").status == 3
    rows = read(tmp_path / "out.jsonl")
    assert rows[0]["generations"] == ["two\nlines"]
    assert rows[1]["error"]["message"] == "line 5: 3 columns where the header has 2"
    assert "UTF-8" in rows[2]["error"]["message"]
    assert len(rows[3]["generations"][0]) == 200_000
    assert rows[4]["id"] == "5"


def test_standard_input_and_output(start: Any) -> None:
    process = start("generate", "-", "--llm", "echo", "-o", "-", stdin=-1)
    out, err = process.communicate('{"prompt": "a"}\n{"prompt": "b"}\n', timeout=60)
    assert process.returncode == 0, err
    assert [json.loads(line)["generations"] for line in out.splitlines()] == [["a"], ["b"]]


def test_several_generations_and_a_limit(run: Any, rows_file: Any, read: Any, tmp_path: Path) -> None:
    source = rows_file([{"prompt": "a"}] * 5)
    run("generate", source, "--llm", "echo", "-n", 3, "--limit", 2, "-o", tmp_path / "out.jsonl")
    assert [row["generations"] for row in read(tmp_path / "out.jsonl")] == [["a"] * 3] * 2


def test_one_prompt_is_printed(run: Any) -> None:
    result = run(
        "generate", "--llm", "echo", "--prompt", "hello there", "--param", "max_new_tokens=1", "-n", 2
    )
    assert (result.status, result.out) == (0, "hello\nhello\n")


def test_saved_settings(run: Any, rows_file: Any, read: Any, tmp_path: Path) -> None:
    llm = stillhouse.create("echo:parrot", generation_kwargs={"max_new_tokens": 1})
    for name in ("llm.json", "llm.yaml"):
        llm.save(tmp_path / name)
        result = run(
            "generate", rows_file([{"prompt": "a b"}]), "--config", tmp_path / name,
            "--set", "latency=0.001", "-o", tmp_path / "out.jsonl", "--restart",
        )  # fmt: skip
        assert result.status == 0, result.err
        row = read(tmp_path / "out.jsonl")[0]
        assert (row["model_name"], row["generations"]) == ("parrot", ["a"])


@pytest.mark.parametrize(
    ("arguments", "status", "message", "hint"),
    [
        (["--llm", "echo"], 2, "there is nothing to do", "or --prompt TEXT"),
        (["{rows}", "--llm", "echo"], 2, "no output is named", "-o OUTPUT.jsonl"),
        (["{rows}", "-o", "{out}"], 2, "no LLM is named", "stillhouse list"),
        (["{rows}", "--llm", "ecko", "-o", "{out}"], 1, 'no LLM "ecko"', "did you mean 'echo'?"),
        (["{rows}", "--llm", "llamacpp", "-o", "{out}"], 1, "is not installed", "stillhouse install stillhouse-llamacpp"),
        (["{rows}", "--llm", "echo", "--set", "latencyy=1", "-o", "{out}"], 2, "no field 'latencyy'", "'latency'"),
        (["{rows}", "--llm", "echo", "--set", "latency=long", "-o", "{out}"], 2, "must be a number", "float"),
        (["{rows}", "--llm", "echo", "--set", "latency=-1", "-o", "{out}"], 2, "must be 0 or more", ""),
        (["{rows}", "--llm", "echo", "--set", "latency", "-o", "{out}"], 2, "not of the form", "name=value"),
        (["{rows}", "--llm", "echo", "--param", "max_new_token=1", "-o", "{out}"], 2, "no generation parameter", "'max_new_tokens'"),
        (["{rows}", "--llm", "echo", "--param", "max_new_tokens=x", "-o", "{out}"], 2, "must be a whole number", "int | None"),
        (["{rows}", "--llm", "echo", "-n", "0", "-o", "{out}"], 2, "'0' is not a whole number of 1 or more", ""),
        (["{rows}", "--llm", "echo", "--raw", "--system", "x", "-o", "{out}"], 2, "no system message", "--raw"),
        (["{rows}", "--llm", "echo", "--template", "{% if", "-o", "{out}"], 2, "template is not valid", ""),
        (["{rows}.missing.jsonl", "--llm", "echo", "-o", "{out}"], 1, "No such file", "check the path"),
        (["{rows}.txt", "--llm", "echo", "-o", "{out}"], 1, "unknown file format", ".jsonl, .json, .csv"),
        (["{rows}", "--llm", "echo", "-o", "{out}.xlsx"], 1, "unknown file format", ".jsonl"),
        (["{rows}", "--llm", "echo", "-o", "{rows}"], 1, "is the input as well", "give another output"),
        (["{rows}", "--llm", "echo", "-o", "{rows}/x.jsonl"], 1, "cannot be written", "folder"),
        (["{rows}", "--config", "{rows}", "-o", "{out}"], 2, "neither a .json nor a .yaml", "suffix"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named_before_anything_runs(
    run: Any, rows_file: Any, tmp_path: Path, arguments: list[str], status: int, message: str, hint: str
) -> None:
    rows = rows_file([{"prompt": "a"}])
    before = rows.read_bytes()
    names = {"{rows}": str(rows), "{out}": str(tmp_path / "out.jsonl")}
    for name, path in names.items():
        arguments = [argument.replace(name, path) for argument in arguments]
    result = run("generate", *arguments)
    assert result.status == status, result.err
    assert message in result.err
    assert hint in result.err
    assert "Traceback" not in result.err
    assert rows.read_bytes() == before
    assert not (tmp_path / "out.jsonl").exists()


def test_an_output_in_a_pipe_that_is_closed_does_not_trace_back(start: Any, rows_file: Any) -> None:
    source = rows_file([{"prompt": "a" * 1000}] * 5000)
    process = start("generate", source, "--llm", "echo", "-o", "-")
    assert process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
