"""`offline_batch_generate` over HTTP: one ledger, no job twice, no row lost."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stillhouse import ConfigurationError, GenerationError, OfflineBatchNotFinishedError
from stillhouse.http.batches import BatchLimits
from stillhouse.outputs import prepare_output

from .support import BatchServer, SingleLLM, TinyLLM, chat, chats, echo

INPUTS = chats("a", "b", "c")


def submit(llm: Any, inputs: Any = INPUTS, **arguments: Any) -> tuple[str, ...]:
    with pytest.raises(OfflineBatchNotFinishedError) as caught:
        llm.offline_batch_generate(inputs, **arguments)
    return caught.value.jobs_ids


def texts(outputs: Any) -> list[Any]:
    return [output and output["generations"] for output in outputs]


def test_batch_is_submitted_then_polled_then_collected(make: Any, server: BatchServer) -> None:
    llm = make(use_offline_batch_generation=True)
    with pytest.raises(OfflineBatchNotFinishedError) as caught:
        llm.generate_outputs(INPUTS, temperature=0.5)
    assert caught.value.jobs_ids == llm.jobs_ids == ("job-0",)
    assert [line["body"]["temperature"] for line in server.jobs["job-0"].lines] == [0.5] * 3
    with pytest.raises(OfflineBatchNotFinishedError):
        llm.generate_outputs(INPUTS, temperature=0.5)
    server.finish()
    assert texts(llm.generate_outputs(INPUTS, temperature=0.5)) == [["A"], ["B"], ["C"]]
    assert llm.jobs_ids is None
    assert list(server.jobs) == ["job-0"]
    submit(llm, temperature=0.5)  # what was collected is over: the same call begins anew
    assert list(server.jobs) == ["job-0", "job-1"]


def test_other_inputs_make_other_jobs_and_the_first_can_still_be_collected(
    make: Any, server: BatchServer
) -> None:
    llm = make()
    assert submit(llm) == ("job-0",)
    assert submit(llm, chats("x")) == ("job-1",)
    server.finish()
    assert texts(llm.offline_batch_generate(INPUTS)) == [["A"], ["B"], ["C"]]
    assert texts(llm.offline_batch_generate(chats("x"))) == [["X"]]
    assert len(server.jobs) == 2


def test_call_without_inputs_collects_the_jobs_by_their_ids(make: Any, server: BatchServer) -> None:
    llm = make()
    submit(llm, num_generations=2)
    dumped = {"jobs_ids": llm.jobs_ids, "jobs_digest": llm.jobs_digest}
    server.finish()
    other = make(**dumped)  # as after a restart
    assert texts(other.offline_batch_generate(None)) == [["A", "A"], ["B", "B"], ["C", "C"]]
    assert other.jobs_ids is None
    with pytest.raises(ConfigurationError, match="has no job"):
        make(jobs_ids=("elsewhere",)).offline_batch_generate(None)


def test_empty_input_list_sends_no_request(make: Any, server: BatchServer) -> None:
    assert make().offline_batch_generate([]) == []
    assert server.requests == []


CRASHES = ["before upload", "after upload", "before create", "after create"]

CHILD = """
    import os, sys
    sys.path.insert(0, {folder!r})
    from batches_support import TinyLLM, chats

    class CrashingLLM(TinyLLM):
        async def upload_batch(self, *args):
            if {crash!r} == "before upload": os._exit(9)
            found = await super().upload_batch(*args)
            if {crash!r} == "after upload": os._exit(9)
            return found

        async def create_batch(self, *args):
            if {crash!r} == "before create": os._exit(9)
            found = await super().create_batch(*args)
            if {crash!r} == "after create": os._exit(9)
            return found

    CrashingLLM.__name__ = "TinyLLM"
    with CrashingLLM(model="m", base_url={url!r}) as llm:
        llm.offline_batch_generate(chats("a", "b", "c"))
"""


@pytest.mark.parametrize("crash", CRASHES)
def test_process_killed_while_submitting_makes_no_second_job(
    make: Any, server: BatchServer, tmp_path: Path, crash: str
) -> None:
    support = Path(__file__).with_name("support.py").read_text(encoding="utf-8")
    (tmp_path / "batches_support.py").write_text(support, encoding="utf-8")
    code = textwrap.dedent(CHILD).format(folder=str(tmp_path), crash=crash, url=server.url)
    died = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, timeout=120
    )
    assert died.returncode == 9, died.stderr
    assert len(server.jobs) == (1 if crash == "after create" else 0)
    llm = make()
    submit(llm)
    if not server.jobs:  # its rows were planned, and are sent now
        submit(llm)
    submit(llm)
    assert len(server.jobs) == 1
    server.finish()
    assert texts(llm.offline_batch_generate(INPUTS)) == [["A"], ["B"], ["C"]]
    assert len(server.jobs) == 1


def test_a_lost_answer_makes_no_second_job(make: Any, server: BatchServer) -> None:
    server.faults = {"POST jobs": ["lost"]}
    assert submit(make()) == ("job-0",)
    assert server.requests.count("POST jobs") == 1
    assert server.requests.count("GET jobs") == 1


def test_a_lost_answer_and_a_list_that_cannot_be_had_make_no_second_job(
    make: Any, server: BatchServer
) -> None:
    llm = make(retry_timeout=0)
    server.faults = {"POST jobs": ["lost"], "GET jobs": [500]}
    with pytest.raises(GenerationError):
        llm.offline_batch_generate(INPUTS)
    submit(llm)
    assert llm.jobs_ids == ("job-0",)
    assert len(server.jobs) == 1


@pytest.mark.parametrize("status", [500, 503])
def test_job_creation_is_retried_when_no_job_was_created(make: Any, server: BatchServer, status: int) -> None:
    server.faults = {"POST jobs": [status, status]}
    assert submit(make()) == ("job-0",)
    # Each time, the provider's list was looked at before.
    asked = [name for name in server.requests if name.endswith(" jobs")]
    assert asked == ["POST jobs", "GET jobs"] * 2 + ["POST jobs"]


def test_job_missing_from_the_list_counts_only_after_a_delay(
    make: Any, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that is slow to list what it accepted."""
    monkeypatch.setattr("stillhouse.offline.sending.SETTLE_SECONDS", 60.0)
    monkeypatch.setattr("stillhouse.offline.sending.SETTLE_PAUSE", 0.01)
    hidden: dict[str, Any] = {}

    class SlowLLM(TinyLLM):
        async def find_batch(self, chunk: Any, known: Any) -> Any:
            hidden["asked"] = hidden.get("asked", 0) + 1
            return await super().find_batch(chunk, known) if hidden["asked"] > 3 else None

    server.faults = {"POST jobs": ["lost"]}
    assert submit(make(SlowLLM)) == ("job-0",)
    assert len(server.jobs) == 1


def test_a_refused_upload_or_job_leaves_nothing_behind(make: Any, server: BatchServer) -> None:
    llm = make()
    for faults in ({"POST files": [401]}, {"POST jobs": [400]}):
        server.faults = faults
        with pytest.raises(GenerationError) as caught:
            llm.offline_batch_generate(INPUTS)
        assert caught.value.kind in ("authentication", "invalid_request")
    submit(llm)
    assert len(server.jobs) == 1
    assert len(server.jobs["job-0"].lines) == 3


def test_duplicate_and_unknown_results_are_ignored(make: Any, server: BatchServer) -> None:
    llm = make()
    submit(llm)
    server.finish(duplicate=True)
    server.files["output-job-0"] += (
        b'\n\n{"custom_id": "a-stranger-1-0", "answer": {}}\n{"custom_id": null}\n'
    )
    assert texts(llm.offline_batch_generate(INPUTS)) == [["A"], ["B"], ["C"]]


def test_a_failed_row_keeps_its_error_and_the_others_their_outputs(make: Any, server: BatchServer) -> None:
    llm = make()
    submit(llm)
    server.finish(outcome=lambda body: 400 if body["text"] == "b" else echo(body))
    with pytest.raises(
        GenerationError, match=r"1 of 3 inputs failed; the first, number 1: .*no: b"
    ) as caught:
        llm.offline_batch_generate(INPUTS)
    assert caught.value.kind == "invalid_request"
    assert texts(caught.value.outputs) == [["A"], None, ["C"]]
    assert llm.jobs_ids is None
    assert len(server.jobs) == 1


@pytest.mark.parametrize("trouble", ["missing", "expired", 429, 500])
def test_only_transient_batch_failures_are_submitted_again(
    make: Any, server: BatchServer, trouble: Any
) -> None:
    llm = make()
    submit(llm)
    server.finish(
        outcome=lambda body: trouble if body["text"] == "b" else echo(body),
        status="expired" if trouble == "expired" else "completed",
    )
    assert submit(llm) == ("job-0", "job-1")
    assert server.texts(server.jobs["job-1"]) == ["b"]
    server.finish()
    assert texts(llm.offline_batch_generate(INPUTS)) == [["A"], ["B"], ["C"]]
    assert len(server.jobs) == 2


def test_batch_row_is_resubmitted_at_most_twice(make: Any, server: BatchServer) -> None:
    llm = make()
    submit(llm)
    for _ in range(2):
        server.finish(outcome=lambda body: 503 if body["text"] == "b" else echo(body))
        submit(llm)
    server.finish(outcome=lambda body: 503)
    with pytest.raises(GenerationError) as caught:
        llm.offline_batch_generate(INPUTS)
    assert (caught.value.kind, caught.value.attempts) == ("server", 3)
    assert texts(caught.value.outputs) == [["A"], None, ["C"]]
    assert [server.texts(job) for job in server.jobs.values()] == [["a", "b", "c"], ["b"], ["b"]]


def test_full_provider_queue_is_retried_only_after_a_job_ended(make: Any, server: BatchServer) -> None:
    class SmallLLM(TinyLLM):
        batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=2, bytes=10_000)

    llm = make(SmallLLM)
    assert submit(llm) == ("job-0", "job-1")
    server.finish(server.jobs["job-1"], lambda body: "missing", status="failed")
    submit(llm)
    assert len(server.jobs) == 2  # the first still goes on
    server.finish()
    submit(llm)
    assert server.texts(server.jobs["job-2"]) == ["c"]
    server.finish()
    assert texts(llm.offline_batch_generate(INPUTS)) == [["A"], ["B"], ["C"]]


def test_chunks_keep_to_both_limits(make: Any, server: BatchServer) -> None:
    class SmallLLM(TinyLLM):
        batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=3, bytes=1000)

    inputs = [chat(f"{number:02}" * (250 if number == 4 else 1)) for number in range(8)]
    inputs.insert(6, chat("x" * 2000))
    llm = make(SmallLLM)
    jobs = submit(llm, inputs)
    assert all(len(job.lines) <= 3 for job in server.jobs.values())
    assert all(len(data) <= 1000 for data in server.files.values())
    assert [len(job.lines) for job in server.jobs.values()] == [3, 3, 2]
    assert len(jobs) == 3
    server.finish()
    with pytest.raises(GenerationError, match="number 6: it is too large") as caught:
        llm.offline_batch_generate(inputs)
    assert caught.value.kind == "invalid_request"
    assert [output is None for output in caught.value.outputs] == [number == 6 for number in range(9)]


def test_an_input_that_the_backend_refuses_fails_alone(make: Any, server: BatchServer) -> None:
    llm = make()
    submit(llm, [*INPUTS, "a raw prompt"])
    assert server.texts(server.jobs["job-0"]) == ["a", "b", "c"]
    server.finish()
    with pytest.raises(GenerationError, match=r"number 3: .*raw_prompt") as caught:
        llm.offline_batch_generate([*INPUTS, "a raw prompt"])
    assert texts(caught.value.outputs) == [["A"], ["B"], ["C"], None]


def test_several_generations_natively(make: Any, server: BatchServer) -> None:
    llm = make()
    submit(llm, num_generations=2)
    assert [line["body"]["n"] for line in server.jobs["job-0"].lines] == [2, 2, 2]
    server.finish()
    assert texts(llm.offline_batch_generate(INPUTS, num_generations=2)) == [["A"] * 2, ["B"] * 2, ["C"] * 2]


def test_only_missing_single_generation_requests_are_submitted_again(make: Any, server: BatchServer) -> None:
    llm = make(SingleLLM)
    submit(llm, num_generations=2)
    first = server.jobs["job-0"]
    assert server.texts(first) == ["a", "a", "b", "b", "c", "c"]
    missing = first.lines.pop(2)  # the first generation of b
    server.finish(count=False)
    submit(llm, num_generations=2)
    again = server.jobs["job-1"]
    assert server.texts(again) == ["b"]
    assert again.lines[0]["custom_id"].rsplit("-", 2)[1:] == missing["custom_id"].rsplit("-", 2)[1:]
    server.finish(outcome=lambda body: "B2")
    outputs = llm.offline_batch_generate(INPUTS, num_generations=2)
    assert texts(outputs) == [["A", "A"], ["B2", "B"], ["C", "C"]]


def test_each_generation_of_a_row_has_a_seed_of_its_own_as_online(make: Any, server: BatchServer) -> None:
    """One seed for all of them made the same generation each time."""

    class SeededLLM(SingleLLM):
        async def agenerate(self, input: Any, seed: int | None = None) -> Any:  # type: ignore[override]
            return prepare_output((await self.post("generate", {"seed": seed}))["texts"])

    llm = make(SeededLLM)
    submit(llm, num_generations=3, seed=7)
    first = server.jobs["job-0"]
    assert [line["body"]["seed"] for line in first.lines] == [7, 8, 9] * 3
    first.lines.pop(4)  # the second generation of b
    server.finish(count=False)
    submit(llm, num_generations=3, seed=7)
    assert [line["body"]["seed"] for line in server.jobs["job-1"].lines] == [8]


def test_error_includes_the_generations_that_succeeded(make: Any, server: BatchServer) -> None:
    llm = make(SingleLLM)
    submit(llm, num_generations=2)
    server.finish(
        server.jobs["job-0"],
        _in_turn("C", 400, "B", "B", "A", "A"),
    )
    with pytest.raises(GenerationError) as caught:
        llm.offline_batch_generate(INPUTS, num_generations=2)
    assert texts(caught.value.outputs) == [["A", "A"], ["B", "B"], ["C"]]


def _in_turn(*results: Any) -> Any:
    source = iter(results)
    return lambda body: next(source)


def test_answers_are_held_to_the_form_of_the_llm_and_of_the_input(make: Any, server: BatchServer) -> None:
    llm = make(structured_output={"format": "choice", "schema": ["A", "C"]})
    inputs = [*INPUTS, (chat("d"), {"format": "choice", "schema": ["D"]})]
    submit(llm, inputs)
    assert server.jobs["job-0"].lines[3]["body"]["choices"] == ["D"]
    server.finish()
    with pytest.raises(GenerationError) as caught:
        llm.offline_batch_generate(inputs)
    assert caught.value.kind == "schema"
    assert texts(caught.value.outputs) == [["A"], None, ["C"], ["D"]]
    submit(llm, inputs)
    server.finish()
    with pytest.raises(ConfigurationError, match="structured output of their own"):
        llm.offline_batch_generate(None)
    with pytest.raises(GenerationError):  # nothing was lost by asking without them
        llm.offline_batch_generate(inputs)


@pytest.mark.parametrize("fault", [500, "cut", "lost"])
def test_failed_download_is_retried(make: Any, server: BatchServer, fault: Any) -> None:
    llm = make()
    submit(llm)
    server.finish()
    server.faults = {"GET files": [fault]}
    assert texts(llm.offline_batch_generate(INPUTS)) == [["A"], ["B"], ["C"]]
    assert server.requests.count("GET files/output-job-0") == 2
    assert len(server.jobs) == 1


def test_undownloadable_results_are_left_at_the_provider(make: Any, server: BatchServer) -> None:
    llm = make()
    submit(llm)
    server.finish()
    server.faults = {"GET files": ["cut"] * 3}
    with pytest.raises(GenerationError, match="not whole"):
        llm.offline_batch_generate(INPUTS)
    assert llm.jobs_ids == ("job-0",)
    assert texts(llm.offline_batch_generate(INPUTS)) == [["A"], ["B"], ["C"]]
    assert len(server.jobs) == 1


def test_cancelled_batch_keeps_its_finished_results(make: Any, server: BatchServer) -> None:
    class SmallLLM(TinyLLM):
        batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=2, bytes=10_000)

    llm = make(SmallLLM)
    submit(llm)
    server.finish(server.jobs["job-0"])
    llm.cancel_offline_batch()
    assert server.jobs["job-1"].status == "cancelled"
    with pytest.raises(GenerationError, match="cancelled") as caught:
        llm.offline_batch_generate(INPUTS)
    assert texts(caught.value.outputs) == [["A"], ["B"], None]
    assert len(server.jobs) == 2


def test_neither_requests_nor_keys_are_in_the_ledger(
    make: Any, server: BatchServer, state_folder: Path
) -> None:
    llm = make(api_key="sk-very-secret")
    submit(llm, chats("a very private question"))
    stored = b"".join(path.read_bytes() for path in state_folder.rglob("*") if path.is_file())
    assert b"job-0" in stored
    assert b"private" not in stored
    assert b"secret" not in stored


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_the_ledger_is_readable_by_its_owner_alone(make: Any, state_folder: Path) -> None:
    submit(make(), chats("a"))
    assert (state_folder / "batches.db").stat().st_mode & 0o077 == 0


def test_only_one_process_at_a_time_works_on_a_batch(make: Any, server: BatchServer) -> None:
    """What another is just sending must not look like what a dead process left behind."""
    other = make()
    seen: list[str] = []

    class BusyLLM(TinyLLM):
        async def upload_batch(self, *args: Any) -> str:
            try:
                await asyncio.to_thread(other.offline_batch_generate, INPUTS)
            except ConfigurationError as error:
                seen.append(error.message)
            return await super().upload_batch(*args)

    BusyLLM.__name__ = "TinyLLM"
    submit(make(BusyLLM))
    assert seen == ["another process is at the same offline batch"]
    assert len(server.jobs) == 1
    submit(other)
    assert len(server.jobs) == 1


def test_call_without_inputs_is_refused_while_chunks_are_unsent(make: Any, server: BatchServer) -> None:
    class SmallLLM(TinyLLM):
        batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=2, bytes=10_000)

    server.faults = {"POST jobs": [None, 400]}
    llm = make(SmallLLM)
    with pytest.raises(GenerationError):
        llm.offline_batch_generate(INPUTS)
    assert llm.jobs_ids == ("job-0",)
    server.finish()
    with pytest.raises(ConfigurationError, match="still to be sent"):
        llm.offline_batch_generate(None)
    submit(llm)
    server.finish()
    assert texts(llm.offline_batch_generate(None)) == [["A"], ["B"], ["C"]]
