"""`stillhouse generate --batch`: submitted, left alone, collected by another process."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import UnsupportedError
from stillhouse.cli.app import app
from stillhouse.jobs.copies.copying import StateCopier
from stillhouse.jobs.formats.jsonl import JsonlReader
from stillhouse.jobs.runs.offline import _RowCursor, jobs_of
from stillhouse.offline import BatchLedger

from ..support import squeezed
from .support import BatchServer, SingleLLM, TinyLLM


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = stillhouse.Registry(entry_points=())
    registry.register("tiny", TinyLLM)
    registry.register("single", SingleLLM)
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)


class Runs:
    """`stillhouse generate` and its kin on one input and one output."""

    def __init__(self, folder: Path, server: BatchServer, capsys: pytest.CaptureFixture[str]) -> None:
        self.input, self.output = folder / "rows.jsonl", folder / "out.jsonl"
        self._server = server
        self._capsys = capsys

    def write(self, rows: list[Any]) -> None:
        self.input.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def command(self, *arguments: object) -> int:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            app([str(argument) for argument in arguments], prog_name="stillhouse")
        self.out, self.err = self._capsys.readouterr()
        return int(exited.value.code or 0)

    def options(self, *arguments: object, llm: str = "tiny") -> list[object]:
        place = f"base_url={self._server.url}"
        return [
            "generate", self.input, "--llm", f"{llm}:m", "--set", place, "-o", self.output, *arguments
        ]  # fmt: skip

    def generate(self, *arguments: object, **options: Any) -> int:
        return self.command(*self.options(*arguments, **options))

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def runs(tmp_path: Path, server: BatchServer, capsys: pytest.CaptureFixture[str]) -> Runs:
    runs = Runs(tmp_path, server, capsys)
    runs.write([{"id": number, "prompt": f"row {number}"} for number in range(10)])
    return runs


def test_bulk_batch_is_submitted_then_collected(runs: Runs, server: BatchServer) -> None:
    runs.write([{"prompt": "a"}, {"text": "no prompt"}, {"prompt": "b"}])
    assert runs.generate("--batch", "-n", 2) == 4
    assert "job-0  in_progress  2 requests" in runs.err
    assert "run the same command again to collect" in runs.err
    assert not runs.output.exists()
    assert runs.generate("--batch", "-n", 2) == 4
    assert len(server.jobs) == 1
    assert runs.command("batches", runs.output) == 0
    assert runs.out == "job-0  in_progress  2 requests\n"
    server.finish()
    assert runs.generate("--batch", "-n", 2) == 3
    assert [row["generations"] for row in runs.rows] == [["A", "A"], None, ["B", "B"]]
    assert runs.rows[1]["error"]["kind"] == "invalid_input"
    assert runs.generate("--batch", "-n", 2) == 3
    assert "is complete" in runs.err
    assert len(server.jobs) == 1
    assert runs.command("batches", runs.output, "--json") == 0
    (facts,) = json.loads(runs.out)
    assert (facts["id"], facts["state"], facts["rows"]) == ("job-0", "collected", 2)


def test_a_batch_of_which_every_row_would_be_refused_is_not_made_and_one_that_is_paid_is_collected(
    runs: Runs, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(llm: Any, input: Any) -> None:
        raise UnsupportedError("the model has no chat template")

    with monkeypatch.context() as refusing:
        refusing.setattr(TinyLLM, "check_input", refuse)
        assert runs.generate("--batch") == 1
        assert "no row of this run can be generated for: the model has no chat template" in runs.err
    assert not server.jobs
    assert runs.generate("--batch") == 4
    server.finish()
    monkeypatch.setattr(TinyLLM, "check_input", refuse)
    assert runs.generate("--batch") == 0
    assert "done 10\n" in squeezed(runs.err)


def test_a_batch_whose_rows_all_failed_alike_stops_the_run_and_is_submitted_again(
    runs: Runs, server: BatchServer
) -> None:
    runs.write([{"prompt": f"row {number}"} for number in range(30)])
    assert runs.generate("--batch") == 4
    server.finish(None, lambda _: 400)
    assert runs.generate("--batch") == 1
    assert "all 30 rows that were tried failed, in a way that no row causes: invalid_request: " in runs.err
    assert not runs.output.exists()
    assert runs.generate("--batch") == 4
    assert "retrying 30 failed rows" in runs.err
    assert [len(job.lines) for job in server.jobs.values()] == [30, 30]
    server.finish(None, lambda body: 400 if body["text"] < "row 2" else "fine")
    assert runs.generate("--batch") == 3, runs.err
    assert sum(row["error"] is None for row in runs.rows) == 18


def test_a_limit_on_failures_holds_for_what_a_batch_brings(runs: Runs, server: BatchServer) -> None:
    assert runs.generate("--batch") == 4
    server.finish(None, lambda body: 400 if body["text"] < "row 3" else "fine")
    assert runs.generate("--batch", "--max-failures", 3) == 1
    assert "3 rows failed, and --max-failures is 3: invalid_request: " in runs.err
    assert runs.generate("--batch", "--max-failures", 3) == 3, runs.err
    assert len(server.jobs) == 1


def test_use_offline_batch_generation_field_equals_the_batch_option(runs: Runs, server: BatchServer) -> None:
    assert runs.generate("--set", "use_offline_batch_generation=true") == 4
    assert len(server.jobs) == 1


def test_wait_option_waits_for_the_batches(
    runs: Runs, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        server.finish()

    monkeypatch.setattr("stillhouse.jobs.runs.batch_work.time.sleep", sleep)
    assert runs.generate("--batch", "--wait", "0.01") == 0, runs.err
    assert slept
    assert [row["generations"] for row in runs.rows] == [[f"ROW {number}"] for number in range(10)]


def test_rows_in_a_batch_are_not_generated_online_too(runs: Runs, server: BatchServer) -> None:
    assert runs.generate("--batch") == 4
    assert runs.generate() == 1
    assert "10 rows of this run are in 1 offline batch" in runs.err
    assert "--finish-online" in runs.err
    assert "POST generate" not in server.requests


def test_finish_online_generates_the_missing_rows(runs: Runs, server: BatchServer) -> None:
    assert runs.generate("--batch") == 4
    (job,) = server.jobs.values()
    server.finish(
        job, lambda body: body["text"].upper() if body["text"] < "row 4" else "expired", status="expired"
    )
    assert runs.generate("--finish-online") == 0, runs.err
    assert [row["generations"] for row in runs.rows] == [
        [f"ROW {number}"] if number < 4 else ["online"] for number in range(10)
    ]
    assert server.requests.count("POST generate") == 6
    assert len(server.jobs) == 1


def test_finish_online_cancels_a_batch_in_progress(runs: Runs, server: BatchServer) -> None:
    assert runs.generate("--batch") == 4
    assert runs.generate("--finish-online") == 0, runs.err
    assert "POST jobs/job-0/cancel" in server.requests
    assert [row["generations"] for row in runs.rows] == [["online"]] * 10


def test_batches_are_cancelled_and_what_they_did_is_kept(runs: Runs, server: BatchServer) -> None:
    assert runs.generate("--batch") == 4
    assert runs.command("batches", runs.output, "--cancel") == 0
    assert "cancelled" in runs.out
    assert runs.generate() == 1
    assert runs.generate("--finish-online") == 0, runs.err


def test_expired_rows_are_submitted_again(runs: Runs, server: BatchServer) -> None:
    assert runs.generate("--batch") == 4
    (job,) = server.jobs.values()
    server.finish(job, lambda body: body["text"] if body["text"] < "row 4" else "expired", status="expired")
    assert runs.generate("--batch") == 4
    assert [server.texts(one) for one in server.jobs.values()][1] == [
        f"row {number}" for number in range(4, 10)
    ]
    assert runs.command("status", runs.output) == 0
    assert "rows finished      4" in runs.out
    server.finish()
    assert runs.generate("--batch") == 0, runs.err
    assert [row["generations"][0].lower() for row in runs.rows] == [f"row {number}" for number in range(10)]


def test_failed_batch_row_is_retried_for_its_missing_generations(runs: Runs, server: BatchServer) -> None:
    runs.write([{"prompt": "a"}, {"prompt": "b"}])
    assert runs.generate("--batch", "-n", 3, llm="single") == 4
    (job,) = server.jobs.values()
    seen: list[str] = []

    def outcome(body: dict[str, Any]) -> Any:
        seen.append(body["text"])
        return (
            400
            if body["text"] == "a" and seen.count("a") == 1
            else f"{body['text']}{seen.count(body['text'])}"
        )

    server.finish(job, outcome, reverse=False)
    assert runs.generate("--batch", "-n", 3, llm="single") == 3
    assert runs.rows[0]["generations"] == ["a2", "a3"]
    assert runs.generate("--batch", "-n", 3, "--retry", "invalid_request", llm="single") == 4
    again = list(server.jobs.values())[1]
    assert server.texts(again) == ["a"]
    server.finish(again, lambda body: "last")
    assert runs.generate("--batch", "-n", 3, llm="single") == 0, runs.err
    assert [row["generations"] for row in runs.rows] == [["a2", "a3", "last"], ["b1", "b2", "b3"]]


def test_contradictory_batch_options_are_refused(runs: Runs) -> None:
    assert runs.generate("--batch", "--finish-online") == 2
    assert runs.generate("--wait") == 2
    assert "give --batch as well" in runs.err
    assert runs.command("generate", runs.input, "--llm", "tiny:m", "-o", "-", "--batch") == 2
    assert runs.command("batches", runs.output) == 1
    assert "there is no run" in runs.err


def test_restart_is_refused_while_batches_are_in_progress(runs: Runs, server: BatchServer) -> None:
    assert runs.generate("--batch") == 4
    assert runs.generate("--batch", "--restart") == 1
    assert "1 offline batch of this run is still running" in runs.err
    assert runs.command("batches", runs.output, "--cancel") == 0
    assert runs.generate("--batch", "--restart") == 4
    assert len(server.jobs) == 2


def test_rows_of_a_cancelled_batch_are_submitted_and_not_sent_online(runs: Runs, server: BatchServer) -> None:
    assert runs.generate("--batch") == 4
    assert runs.command("batches", runs.output, "--cancel") == 0
    assert runs.generate("--batch") == 4
    assert runs.generate("--batch") == 4
    assert len(server.jobs) == 2
    assert "POST generate" not in server.requests


def test_a_limit_bounds_what_is_submitted(runs: Runs, server: BatchServer) -> None:
    assert runs.generate("--batch", "--limit", 3) == 4
    (job,) = server.jobs.values()
    assert server.texts(job) == ["row 0", "row 1", "row 2"]


def test_rows_are_found_in_any_order(runs: Runs) -> None:
    with _RowCursor(JsonlReader(str(runs.input))) as seeker:
        assert [seeker.row(index).index for index in (3, 3, 1, 9, 0)] == [3, 3, 1, 9, 0]


def test_process_killed_between_collecting_and_acknowledging_repeats_no_row(
    runs: Runs, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.write([{"prompt": "a"}])
    assert runs.generate("--batch", "-n", 2, llm="single") == 4
    seen: list[str] = []
    server.finish(None, lambda body: seen.append(body["text"]) or (400 if len(seen) == 1 else "A"))
    assert runs.generate("--batch", "-n", 2, llm="single") == 3
    assert runs.generate("--batch", "-n", 2, "--retry", "all", llm="single") == 4
    server.finish()

    def die(_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("stillhouse.offline.results.Results.acknowledge", die)
        assert runs.generate("--batch", "-n", 2, llm="single") == 130
    paid = ["A", "A"]
    # No row is left that this job could belong to; it is acknowledged all the same.
    assert runs.generate("--batch", "-n", 2, llm="single") == 0
    assert runs.command("batches", runs.output, "--json") == 0
    assert [job["state"] for job in json.loads(runs.out)] == ["collected", "collected"]
    assert runs.rows[0]["generations"] == paid
    assert runs.generate("-n", 2, llm="single") == 0, runs.err
    assert len(server.jobs) == 2


DYING = """
import os, sys
sys.path.insert(0, {folder!r})
import stillhouse
from stillhouse import UnsupportedError
from stillhouse.cli.app import app
from support import TinyLLM
import stillhouse.offline.engine as engine
registry = stillhouse.Registry(entry_points=())
stillhouse.registry.registry._default = registry

class Dying(TinyLLM):
    async def create_batch(self, chunk, file, size):
        job = await super().create_batch(chunk, file, size)
        os._exit(9)

registry.register("tiny", Dying)
app({arguments!r})
"""


def test_a_process_that_dies_between_create_and_record_makes_no_second_job(
    runs: Runs, server: BatchServer
) -> None:
    arguments = [str(argument) for argument in runs.options("--batch")]
    code = DYING.format(folder=str(Path(__file__).parent), arguments=arguments)
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert died.returncode == 9, died.stderr
    assert len(server.jobs) == 1
    assert runs.generate("--batch") == 4, runs.err
    assert len(server.jobs) == 1
    server.finish()
    assert runs.generate("--batch") == 0, runs.err
    assert len(server.jobs) == 1
    assert [row["generations"] for row in runs.rows] == [[f"ROW {number}"] for number in range(10)]


def test_hooks_learn_that_a_run_waits_for_its_batches_and_that_it_is_complete(
    runs: Runs, server: BatchServer
) -> None:
    outcomes: list[tuple[bool, str, int, int | None]] = []

    class Watcher:
        @stillhouse.hookimpl
        def run_finished(self, summary: stillhouse.RunSummary) -> None:
            outcomes.append((summary.run.resumed, summary.outcome, summary.done, summary.output_tokens))

    stillhouse.default_registry().register_hooks("watcher", Watcher())
    assert runs.generate("--batch") == 4
    server.finish()
    assert runs.generate("--batch") == 0
    (first, second) = outcomes
    assert first == (False, "waiting", 0, None)
    assert second[:3] == (True, "complete", 10)


# Chosen rows


def sent(server: BatchServer) -> list[str]:
    return [text for job in server.jobs.values() for text in server.texts(job)]


@pytest.mark.parametrize("ends", ["batch", "online"])
def test_rows_that_ask_for_the_same_are_in_a_batch_once(runs: Runs, server: BatchServer, ends: str) -> None:
    runs.write([{"prompt": text} for text in "abacba"])
    assert runs.generate("--batch", "--dedupe") == 4
    assert sent(server) == ["a", "b", "c"]
    if ends == "batch":
        server.finish()
        assert runs.generate("--batch", "--dedupe") == 0, runs.err
    else:
        assert runs.generate("--finish-online", "--dedupe") == 0, runs.err
    assert "equal to an earlier row 3, not paid again" in squeezed(runs.err)
    answers = {row["prompt"]: row["generations"] for row in runs.rows}
    assert len({text for (text,) in answers.values()}) == (3 if ends == "batch" else 1)
    assert [row["generations"] for row in runs.rows] == [answers[text] for text in "abacba"]
    assert runs.generate("--batch", "--dedupe") == 0
    assert len(server.jobs) == 1


def test_a_batch_has_the_chosen_rows_alone(runs: Runs, server: BatchServer) -> None:
    options = ["--batch", "--where", "id != 4", "--shard", "1/2", "--limit", "4"]
    assert runs.generate(*options) == 4
    assert sent(server) == ["row 0", "row 2", "row 5", "row 7"]
    server.finish()
    assert runs.generate(*options) == 0, runs.err
    assert [row["id"] for row in runs.rows] == [0, 2, 5, 7]
    assert runs.rows[2]["generations"] == ["ROW 5"]


def test_rows_are_added_once_the_batches_are_collected(runs: Runs, server: BatchServer) -> None:
    before = runs.input.read_bytes()
    assert runs.generate("--batch") == 4
    runs.input.write_bytes(before + b'{"id": 10, "prompt": "row 10"}\n')
    assert runs.generate("--batch", "--extend") == 1
    assert "put the input back as it was, and collect the batches first" in runs.err
    grown = runs.input.read_bytes()
    runs.input.write_bytes(before)
    server.finish()
    assert runs.generate("--batch") == 0, runs.err
    runs.input.write_bytes(grown)
    assert runs.generate("--batch", "--extend") == 4, runs.err
    assert sent(server)[10:] == ["row 10"]
    server.finish()
    assert runs.generate("--batch") == 0, runs.err
    assert [row["generations"] for row in runs.rows] == [[f"ROW {number}"] for number in range(11)]


def test_a_submitted_batch_is_in_the_copy_of_the_state_at_once(
    runs: Runs, server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec")
    copy, seen = tmp_path / "copy.gz", threading.Event()

    def look() -> None:
        """End the job once the copy knows it: the run would wait for it for ever otherwise."""
        ends = time.monotonic() + 60
        while not seen.is_set() and time.monotonic() < ends:
            if copy.exists():
                (tmp_path / "looked-at.db").write_bytes(gzip.decompress(copy.read_bytes()))
                with BatchLedger(tmp_path / "looked-at.db") as ledger:
                    if any(job.job == "job-0" for job in jobs_of(ledger)):
                        seen.set()
            time.sleep(0.01)
        server.finish()

    thread = threading.Thread(target=look)
    thread.start()
    with monkeypatch.context() as killed:
        killed.setattr(StateCopier, "finish", lambda copier: None)
        assert runs.generate("--batch", "--wait", "0.5", "--state-copy", copy) == 0
    thread.join()
    assert seen.is_set()
    first = runs.output.read_bytes()
    for path in tmp_path.glob("out.jsonl*"):
        path.unlink()
    assert runs.generate("--batch", "--state-copy", copy) == 0
    assert "state restored from" in runs.err
    assert len(server.jobs) == 1
    assert runs.output.read_bytes() == first
