"""Resumed runs: what is refused, reported and stored."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import stillhouse
from stillhouse import AsyncLLM, FormattedInput, GenerateOutput, GenerationError, prepare_output
from stillhouse.jobs.store.database import StoreError
from stillhouse.jobs.store.lock import is_worked_on
from stillhouse.jobs.store.seals import sealed
from stillhouse.jobs.store.store import SqliteStore

from ..support import squeezed

STATE = "out.jsonl.run.db"


@pytest.fixture
def generate(run: Any, tmp_path: Path) -> Any:
    """Run `stillhouse generate rows.jsonl --llm echo -o out.jsonl` with further options."""

    def call(*options: object, llm: str = "echo", source: object = None) -> Any:
        return run(
            "generate",
            source or tmp_path / "rows.jsonl",
            "--llm",
            llm,
            "-o",
            tmp_path / "out.jsonl",
            *options,
        )

    return call


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--param", "max_new_tokens=3"], "parameters.max_new_tokens: it was null, and is 3 now"),
        (["--set", "failure_rate=0.5"], "llm.failure_rate: it was 0.0, and is 0.5 now"),
        (["-n", "2"], "num_generations: it was 1, and is 2 now"),
        (["--template", "{{ id }}"], 'template: it was null, and is "{{ id }}" now'),
        (["--system", "s"], 'system: it was null, and is "s" now'),
        (["--raw"], "raw: it was false, and is true now"),
    ],
)
def test_resume_with_another_command_is_refused_with_the_difference(
    generate: Any, rows_file: Any, tmp_path: Path, options: list[str], difference: str
) -> None:
    rows_file([{"id": 1, "prompt": "a"}])
    assert generate().status == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    refused = generate(*options)
    assert refused.status == 1
    assert difference in refused.err
    assert "--restart" in refused.err
    assert (tmp_path / "out.jsonl").read_bytes() == before
    assert generate(*options, "--restart").status == 0
    assert generate(*options).status == 0


def test_run_without_outputs_accepts_another_command(
    generate: Any, rows_file: Any, read: Any, tmp_path: Path, own_registry: stillhouse.Registry
) -> None:
    own_registry.register("refusing", RefusingLLM)
    rows_file([{"prompt": "a"}])
    assert generate(llm="refusing").status == 1
    fixed = generate()
    assert fixed.status == 0, fixed.err
    assert "going on" not in fixed.err
    assert read(tmp_path / "out.jsonl")[0]["generations"] == ["a"]


@pytest.mark.parametrize(
    "options", [["--max-concurrency", "3"], ["--set", "model=echo"], ["--param", "max_new_tokens=null"]]
)
def test_equivalent_command_resumes_the_run(generate: Any, rows_file: Any, options: list[str]) -> None:
    rows_file([{"prompt": "a"}])
    assert generate().status == 0
    again = generate(*options)
    assert again.status == 0, again.err
    assert "is complete: 1 row" in again.err


def test_resume_accepts_a_new_setting_at_its_default(generate: Any, rows_file: Any, tmp_path: Path) -> None:
    """As one that a newer version of a backend has, whose default is None."""
    rows_file([{"prompt": "a"}])
    assert generate().status == 0
    with contextlib.closing(sqlite3.connect(tmp_path / STATE)) as connection:
        ((text,),) = connection.execute("SELECT value FROM info WHERE key = 'command'")
        command = {key: value for key, value in json.loads(text).items() if key != "template"}
        connection.execute(
            "REPLACE INTO info VALUES (?, ?, ?)", sealed("info", "command", json.dumps(command))
        )
        connection.commit()
    again = generate()
    assert (again.status, "is complete" in again.err) == (0, True), again.err


def test_a_changed_input_is_refused_and_says_which_rows(generate: Any, rows_file: Any) -> None:
    rows = [{"prompt": f"row {number}"} for number in range(5)]
    rows_file(rows)
    assert generate().status == 0
    rows[2]["prompt"] = rows[4]["prompt"] = "another"
    rows_file(rows)
    refused = generate()
    assert refused.status == 1
    assert "input: 2 of 5 rows differ; the first is on line 3" in refused.err
    rows_file([{"prompt": f"row {number}"} for number in range(4)])
    assert "input: it has fewer rows than were generated" in generate().err
    rows_file([{"prompt": f"row {number}"} for number in range(6)])
    assert "input: it changed, but not in the 5 rows that were generated" in generate().err


def test_larger_limit_resumes_the_run(generate: Any, rows_file: Any, read: Any, tmp_path: Path) -> None:
    rows_file([{"prompt": f"row {number}"} for number in range(5)])
    assert generate("--limit", 2).status == 0
    assert len(read(tmp_path / "out.jsonl")) == 2
    again = generate()
    assert again.status == 0
    assert "resuming: 2 rows finished" in again.err
    assert [row["generations"] for row in read(tmp_path / "out.jsonl")] == [
        [f"row {number}"] for number in range(5)
    ]


def test_run_interrupted_before_recording_completion_writes_the_output_again(
    generate: Any, rows_file: Any, read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_file([{"prompt": f"row {number}"} for number in range(5)])
    assert generate().status == 0
    note = SqliteStore.set

    def die(store: SqliteStore, key: str, value: Any) -> None:
        if key == "complete" and value is not None:
            raise KeyboardInterrupt
        note(store, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "set", die)
        assert generate("--limit", 3).status == 130
    assert len(read(tmp_path / "out.jsonl")) == 3
    # What was noted of the output before is not true any more.
    assert generate().status == 0
    assert len(read(tmp_path / "out.jsonl")) == 5


def test_an_output_that_was_removed_is_written_again(
    generate: Any, rows_file: Any, tmp_path: Path, own_registry: stillhouse.Registry
) -> None:
    rows_file([{"prompt": "a"}] * 3)
    assert generate().status == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.jsonl").unlink()
    again = generate()
    assert again.status == 0
    assert "finished before" in again.err
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_run_from_standard_input_resumes_with_the_same_input(start: Any, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    for text, status, message in (
        ('{"prompt": "a"}\n', 0, "rows 1"),
        ('{"prompt": "a"}\n', 0, "is complete"),
        ('{"prompt": "b"}\n', 1, "1 of 1 row differs"),
    ):
        process = start("generate", "-", "--llm", "echo", "-o", output, stdin=-1)
        _, err = process.communicate(text, timeout=60)
        assert process.returncode == status, err
        assert message in squeezed(err)
    assert {path.name for path in tmp_path.iterdir()} == {"out.jsonl", STATE}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_an_interrupt_while_standard_input_is_read(start: Any, tmp_path: Path) -> None:
    process = start("generate", "-", "--llm", "echo", "-o", tmp_path / "out.jsonl", stdin=-1)
    process.stdin.write('{"prompt": "a"}\n' * 200_000)  # more than is read at once: it waits for the rest
    process.stdin.flush()
    spooled = tmp_path / "out.jsonl.run.input.partial" / "rows.jsonl"
    while not (spooled.exists() and spooled.stat().st_size):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert {path.name for path in tmp_path.iterdir()} == set()


def test_is_worked_on_releases_the_lock(generate: Any, rows_file: Any, tmp_path: Path) -> None:
    rows_file([{"prompt": "a"}])
    assert generate().status == 0
    state = tmp_path / STATE
    assert not is_worked_on(state)
    first, second = SqliteStore(tmp_path / "out.jsonl", "echo"), None
    try:
        first.start()
        with pytest.raises(StoreError, match=f"process {os.getpid()} on "):
            second = SqliteStore(tmp_path / "out.jsonl", "echo")
        assert is_worked_on(state)
    finally:
        first.close("stopped")
    assert second is None


def test_two_processes_on_one_output(generate: Any, rows_file: Any, tmp_path: Path) -> None:
    rows_file([{"prompt": "a"}])
    store = SqliteStore(tmp_path / "out.jsonl", "echo")
    store.start()
    try:
        refused = generate()
        assert refused.status == 1
        assert f"another process works on this run: process {os.getpid()} on " in refused.err
        assert generate("--restart").status == 1
    finally:
        store.close("stopped")
    assert generate().status == 0


def test_a_state_of_a_newer_version(generate: Any, rows_file: Any, tmp_path: Path) -> None:
    rows_file([{"prompt": "a"}])
    assert generate().status == 0
    with contextlib.closing(sqlite3.connect(tmp_path / STATE)) as connection:
        connection.execute("PRAGMA user_version = 999")
    before = (tmp_path / STATE).read_bytes()
    refused = generate()
    assert refused.status == 1
    assert "newer version of stillhouse" in refused.err
    assert "stillhouse install --upgrade stillhouse" in refused.err
    assert (tmp_path / STATE).read_bytes() == before


def test_a_damaged_state(generate: Any, run: Any, rows_file: Any, tmp_path: Path) -> None:
    rows_file([{"prompt": "a"}] * 20)
    assert generate().status == 0
    (tmp_path / STATE).write_bytes(b"no database at all" * 500)
    refused = generate()
    assert refused.status == 1, refused.err
    assert "is damaged" in refused.err
    assert "move it away" in refused.err
    assert "Traceback" not in refused.err
    assert "Traceback" not in run("status", tmp_path / "out.jsonl").err
    anew = generate("--restart")
    # Nothing shows that Stillhouse wrote it, so it is not removed.
    assert (anew.status, "did not make it" in anew.err) == (1, True)
    assert (tmp_path / STATE).read_bytes() == b"no database at all" * 500


def test_an_empty_state_can_be_restarted(generate: Any, rows_file: Any, tmp_path: Path) -> None:
    rows_file([{"prompt": "a"}] * 20)
    assert generate().status == 0
    (tmp_path / STATE).write_bytes(b"")
    refused = generate()
    assert (refused.status, "is empty" in refused.err) == (1, True)
    anew = generate("--restart")
    assert anew.status == 0, anew.err


def test_a_database_of_something_else_is_left_alone(generate: Any, rows_file: Any, tmp_path: Path) -> None:
    rows_file([{"prompt": "a"}])
    with contextlib.closing(sqlite3.connect(tmp_path / STATE)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    refused = generate()
    assert refused.status == 1
    assert "a database of something else" in refused.err
    with contextlib.closing(sqlite3.connect(tmp_path / STATE)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(generate: Any, rows_file: Any, tmp_path: Path) -> None:
    rows_file([{"prompt": "a"}])
    tmp_path.chmod(0o555)
    try:
        refused = generate()
    finally:
        tmp_path.chmod(0o755)
    assert refused.status == 1
    assert "cannot be written" in refused.err


class RefusingLLM(AsyncLLM):
    """Its key is refused."""

    @property
    def model_name(self) -> str:
        return "refusing"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        raise GenerationError("the key was refused", kind="authentication")


class EditingLLM(AsyncLLM):
    """Does something to the input while the run goes on."""

    edit: Any = None

    @property
    def model_name(self) -> str:
        return "editing"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        if EDITS:
            EDITS.pop()()
        return prepare_output([str(input[-1]["content"])])  # type: ignore[index]


EDITS: list[Any] = []


def test_an_input_that_changed_under_the_run(
    generate: Any, rows_file: Any, read: Any, tmp_path: Path, own_registry: stillhouse.Registry
) -> None:
    own_registry.register("editing", EditingLLM)
    rows = [{"prompt": f"row {number}"} for number in range(100)]
    changed = [{"prompt": f"ROW {number}"} for number in range(100)]
    source = rows_file(rows)
    whole = source.read_bytes()
    # It is written in place when the first rows are in flight, so that later rows are read changed.
    EDITS.append(lambda: rows_file(changed))
    refused = generate("--max-concurrency", 1, llm="editing")
    assert refused.status == 1
    assert "the input changed during the run" in refused.err
    assert not (tmp_path / "out.jsonl").exists()
    source.write_bytes(whole)
    again = generate("--max-concurrency", 1, llm="editing")
    assert again.status == 0, again.err
    assert [row["generations"] for row in read(tmp_path / "out.jsonl")] == [
        [f"row {number}"] for number in range(100)
    ]


def test_duplicate_and_empty_rows_are_rows_of_their_own(
    generate: Any, rows_file: Any, read: Any, tmp_path: Path
) -> None:
    rows_file([{"prompt": "a"}, {"prompt": "a"}, {}, {"prompt": ""}, "", {"prompt": "a"}])
    assert generate().status == 3
    written = read(tmp_path / "out.jsonl")
    assert [row["generations"] for row in written] == [["a"], ["a"], None, [None], ["a"]]
    assert written[2]["error"]["kind"] == "invalid_input"


def test_a_row_of_fifty_megabytes(generate: Any, rows_file: Any, tmp_path: Path) -> None:
    rows_file([{"prompt": "x" * 50_000_000}, {"prompt": "small"}])
    assert generate().status == 0
    with (tmp_path / "out.jsonl").open() as stream:
        first = json.loads(next(stream))
        assert len(first["generations"][0]) == 50_000_000
        assert json.loads(next(stream))["generations"] == ["small"]


def test_retry_says_how_many_and_refuses_an_unknown_kind(generate: Any, rows_file: Any) -> None:
    rows_file([{"prompt": "a"}, {"text": "none"}])
    assert generate().status == 3
    assert generate().status == 3
    refused = generate("--retry", "timeot")
    assert refused.status == 2
    assert "did you mean 'timeout'?" in refused.err
    assert "retrying 0 failed rows" in generate("--retry", "timeout").err
    again = generate("--retry", "invalid_input")
    assert again.status == 3
    assert "retrying 1 failed row" in again.err


def test_output_to_standard_output_cannot_be_restarted(run: Any, rows_file: Any) -> None:
    result = run("generate", rows_file([{"prompt": "a"}]), "--llm", "echo", "-o", "-", "--restart")
    assert result.status == 2
    assert "what was printed is not kept" in result.err


def test_status_while_it_runs_and_after(generate: Any, run: Any, rows_file: Any, tmp_path: Path) -> None:
    missing = run("status", tmp_path / "out.jsonl")
    assert missing.status == 1
    assert "there is no run of this output" in missing.err
    rows_file([{"prompt": "a"}, {"text": "none"}])
    generate()
    shown = run("status", tmp_path / "out.jsonl")
    assert shown.status == 0
    assert "complete" in shown.out
    assert "failed: invalid_input  1" in shown.out
    facts = json.loads(run("status", tmp_path / "out.jsonl", "--json").out)
    assert (facts["complete"], facts["working"], facts["rows"], facts["failed"]) == (
        True, False, 2, {"invalid_input": 1},
    )  # fmt: skip
    assert facts["command"]["llm"]["llm"] == "echo"
    assert facts["sessions"][0]["outcome"] == "complete"
    store = SqliteStore(tmp_path / "out.jsonl", "echo")
    store.start()
    try:
        facts = json.loads(run("status", tmp_path / "out.jsonl", "--json").out)
        assert facts["working"] is True
        assert facts["sessions"][1]["process"] == os.getpid()
    finally:
        store.close("interrupted")
    # It is watched until nobody works on it.
    assert json.loads(run("status", tmp_path / "out.jsonl", "--json", "--watch").out)["working"] is False


def test_no_secret_is_in_the_state(
    run: Any, rows_file: Any, tmp_path: Path, own_registry: stillhouse.Registry
) -> None:
    class SecretiveLLM(EditingLLM):
        api_key: SecretStr | None = None
        headers: dict[str, str] | None = None
        address: str | None = None

        async def agenerate(
            self,
            input: FormattedInput,
            num_generations: int = 1,
            extra_body: dict[str, Any] | None = None,
        ) -> GenerateOutput:
            return prepare_output(["x"])

    own_registry.register("secretive", SecretiveLLM)
    result = run(
        "generate", rows_file([{"prompt": "a"}]), "--llm", "secretive", "-o", tmp_path / "out.jsonl",
        "--set", "api_key=sk-hidden", "--set", 'headers={"authorization": "Bearer sk-hidden"}',
        "--set", "address=https://me:sk-hidden@localhost/v1",
        "--param", 'extra_body={"tools": [{"url": "u", "headers": {"Authorization": "Bearer sk-hidden"}}]}',
    )  # fmt: skip
    assert result.status == 0, result.err
    for path in tmp_path.iterdir():
        assert b"sk-hidden" not in path.read_bytes()
