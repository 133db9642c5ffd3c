"""Runs through workers: the same output as by one process, whatever is asked for and whatever fails."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import ConfigurationError, GenerationError, hookimpl
from stillhouse.jobs.executors import Deliver, Died, Refused, Setup, WorkerHandle, Workers
from stillhouse.jobs.executors.processes import ProcessWorker

from .conftest import Server, read_jsonl

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)

import worker_llms  # noqa: E402 - workers import it by this name


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    yield
    sys.path.remove(HERE)


def write(path: Path, prompts: list[str], **more: Any) -> Path:
    path.write_text(
        "".join(
            json.dumps({"id": number, "prompt": text, **more}) + "\n" for number, text in enumerate(prompts)
        )
    )
    return path


def both(
    tmp_path: Path, source: Any, llm: Callable[[], Any], suffix: str = ".jsonl", **options: Any
) -> tuple[bytes, bytes]:
    """What one process writes, and what two workers write."""
    written = []
    for name, more in (("one", {}), ("workers", {"executor": "processes", "workers": 2})):
        output = tmp_path / f"{name}{suffix}"
        stillhouse.run(source, llm=llm(), output=output, show_bar=False, **options, **more)
        written.append(output.read_bytes())
    return written[0], written[1]


ECHO_OPTIONS: dict[str, dict[str, Any]] = {
    ".jsonl": {"num_generations": 3, "row_params": True, "fields": {"failure_rate": 0.2}},
    ".csv": {"dedupe": True, "limit": 70, "param": {"max_new_tokens": 2}, "text": True},
    ".jsonl.gz": {"raw": True, "where": "id % 3 == 0", "template": "{{ prompt }} and {{ 1 / (id % 5) }}"},
    ".parquet": {"num_generations": 2, "output_prefix": "new_", "fields": {"failure_rate": 0.2}},
}


@pytest.mark.parametrize("suffix", ECHO_OPTIONS)
def test_workers_write_what_one_process_writes(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    prompts = [f"a question about {number % 90}" for number in range(200)]
    source = write(tmp_path / "in.jsonl", prompts, max_new_tokens=3)
    with source.open("a") as lines:
        lines.write("this is no JSON\n")
    options = {"max_failures": 0, **ECHO_OPTIONS[suffix]}
    one, workers = both(tmp_path, source, lambda: "echo", suffix, **options)
    assert one == workers


def test_so_do_workers_that_get_images_and_a_schema(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(7):
        (images / f"{number}.png").write_bytes(worker_llms.PNG + bytes([number]))
    rows = [
        {"id": n, "prompt": json.dumps({"name": f"row {n}"}), "image": f"{n % 8}.png" if n % 3 else None}
        for n in range(60)
    ]
    options: dict[str, Any] = {
        "schema": "name, age int", "expand": True, "image_column": "image", "images_from": images,
        "max_failures": 0,
    }  # fmt: skip
    one, workers = both(tmp_path, rows, worker_llms.Reading, **options)
    assert one == workers
    found = read_jsonl(tmp_path / "workers.jsonl")
    assert [row.get("name") for row in found if row["image"] is None] == [f"row {n}" for n in range(0, 60, 3)]
    assert {row["id"] % 8 for row in found if row["error"]} == {7}  # there is no such image


def test_so_do_workers_of_lists(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", ["fail" if n % 7 == 3 else f"row {n}" for n in range(60)])
    one, workers = both(tmp_path, source, worker_llms.Plain, num_generations=2)
    assert one == workers
    assert [row["error"]["kind"] for row in read_jsonl(tmp_path / "workers.jsonl") if row.get("error")] == [
        "server"
    ] * 9


def test_so_do_workers_of_a_server(tmp_path: Path, server: Server) -> None:
    server.fails = lambda body: 1 if body["prompt"].endswith("7") else None
    source = write(tmp_path / "in.jsonl", [f"row {number}" for number in range(120)])

    def llm() -> Any:
        return worker_llms.Counted(model="m", base_url=f"http://127.0.0.1:{server.port}")

    one, workers = both(tmp_path, source, llm, num_generations=2, param={"seed": 5}, max_failures=0)
    assert one == workers
    assert len(server.asked) == 240  # each row once by either


def test_rows_come_out_in_their_order(tmp_path: Path) -> None:
    """Also where each worker is as slow as the first row of the input."""
    source = write(tmp_path / "in.jsonl", [f"row {number}" for number in range(500)])
    ended = subprocess.run(
        [*command(source, "echo"), "-o", "-", "--executor", "processes", "--workers", "3"],
        capture_output=True,
        check=True,
    )
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [row["id"] for row in rows] == list(range(500))
    assert [row["generations"] for row in rows] == [[row["prompt"]] for row in rows]


def command(source: Path, llm: str) -> list[str]:
    return [sys.executable, "-m", "stillhouse", "generate", str(source), "--llm", llm]


def test_the_limits_are_shared(tmp_path: Path, server: Server) -> None:
    """`max_concurrency` is of the run: three workers do not have three times as much in flight."""
    server.hold()
    source = write(tmp_path / "in.jsonl", [f"row {number}" for number in range(100)])
    llm = worker_llms.Counted(model="m", base_url=f"http://127.0.0.1:{server.port}", max_concurrency=7)
    seen: list[int] = []

    def look(progress: Any) -> None:
        if server.wait_for(7) and not seen:
            seen.append(len(server.asked))
            server.let_go()

    stillhouse.run(
        source, llm=llm, output=tmp_path / "out.jsonl", executor="processes", workers=3, on_progress=look
    )
    assert seen == [7]
    assert len(server.asked) == 100


def test_more_workers_than_may_be_in_flight_are_not_started(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", ["a"] * 40)
    llm = worker_llms.Fragile(says_process=True, max_concurrency=2)
    run = stillhouse.run(
        source, llm=llm, output=tmp_path / "o.jsonl", executor="processes", workers=3, show_bar=False
    )
    processes = {row["generations"][0] for row in run}
    assert len(processes) == 2
    assert str(os.getpid()) not in processes


class Seen:
    """A hook that answers, and one that observes."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.errors: list[str] = []
        self.processes: set[int] = set()

    @hookimpl
    def before_generate(self, input: Any) -> Any:
        self.processes.add(os.getpid())
        return stillhouse.prepare_output(["from the hook"]) if "answer" in input[-1]["content"] else None

    @hookimpl
    def after_generate(self, row: Any, error: Any, from_hook: bool) -> None:
        self.rows.append(row.index)
        if error is not None:
            self.errors.append(error.kind)


def test_hooks_are_called_once_for_each_row_in_the_process_of_the_run(tmp_path: Path) -> None:
    prompts = ["answer" if n % 3 == 0 else "fail" if n % 3 == 1 else f"row {n}" for n in range(30)]
    source = write(tmp_path / "in.jsonl", prompts)
    seen, registry = Seen(), stillhouse.registry.Registry()
    registry.register_hooks("seen", seen)
    llm = worker_llms.Fragile()
    llm.use_registry(registry)
    stillhouse.run(
        source, llm=llm, output=tmp_path / "o.jsonl", executor="processes", workers=2, show_bar=False,
        max_failures=0,
    )  # fmt: skip
    assert sorted(seen.rows) == list(range(30))
    assert seen.errors == ["server"] * 10
    assert seen.processes == {os.getpid()}
    rows = read_jsonl(tmp_path / "o.jsonl")
    assert [row["generations"] for row in rows[::3]] == [["from the hook"]] * 10


def test_a_ceiling_holds_for_all_workers(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [f"row {number}" for number in range(80)])
    options: dict[str, Any] = {
        "llm": "echo", "output": tmp_path / "o.jsonl", "param": {"max_new_tokens": 4}, "show_bar": False,
        "executor": "processes", "workers": 2,
    }  # fmt: skip
    with pytest.raises(stillhouse.StillhouseError, match="token"):
        stillhouse.run(source, max_tokens_total=150, **options)
    state = stillhouse.estimate(source, llm="echo", output=tmp_path / "o.jsonl", param={"max_new_tokens": 4})
    assert 0 < state.rows < 80
    run = stillhouse.run(source, **options)
    assert [row["generations"] for row in run] == [[f"row {number}"] for number in range(80)]


def test_a_ceiling_on_the_cost_holds_for_all_workers(tmp_path: Path) -> None:
    prices = pytest.importorskip("genai_prices")
    usage = prices.Usage(input_tokens=30, output_tokens=100)
    one = float(prices.calc_price(usage, "gpt-5-mini", provider_id="openai").total_price)
    source = write(tmp_path / "in.jsonl", [f"row {number}" for number in range(60)])
    options: dict[str, Any] = {"output": tmp_path / "o.jsonl", "param": {"max_new_tokens": 200}}
    workers: dict[str, Any] = {"executor": "processes", "workers": 2, "show_bar": False}
    with pytest.raises(stillhouse.StillhouseError, match="the budget is used up"):
        stillhouse.run(source, llm=worker_llms.Priced(), max_cost=20 * one, **options, **workers)
    left = stillhouse.estimate(source, llm=worker_llms.Priced(), **options).rows
    assert 40 <= left < 60
    run = stillhouse.run(source, llm=worker_llms.Priced(), **options, **workers)
    assert run.counts.done == 60


def test_too_many_failed_rows_stop_workers_too(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.jsonl", ["fail" if number % 4 == 1 else f"row {number}" for number in range(400)]
    )
    options: dict[str, Any] = {
        "output": tmp_path / "o.jsonl", "show_bar": False, "executor": "processes", "workers": 2,
    }  # fmt: skip

    def llm() -> Any:
        return worker_llms.Fragile(max_concurrency=2)

    with pytest.raises(stillhouse.StillhouseError, match=r"max.failures is 3"):
        stillhouse.run(source, llm=llm(), max_failures=3, **options)
    left = stillhouse.estimate(source, llm=llm(), output=tmp_path / "o.jsonl").rows
    assert 0 < left < 400
    run = stillhouse.run(source, llm=llm(), max_failures=0, retry="all", **options)
    assert [row["generations"] is not None for row in run] == [number % 4 != 1 for number in range(400)]


def test_workers_resume_what_one_process_began_and_the_other_way_round(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [f"row {number}" for number in range(60)])
    options: dict[str, Any] = {
        "llm": "echo", "output": tmp_path / "o.jsonl", "param": {"max_new_tokens": 4}, "show_bar": False,
    }  # fmt: skip
    workers: dict[str, Any] = {"executor": "processes", "workers": 2}
    left = [60]
    for ceiling, more in ((150, {}), (300, workers)):
        with pytest.raises(stillhouse.StillhouseError, match="token"):
            stillhouse.run(source, max_tokens_total=ceiling, **options, **more)
        estimate = stillhouse.estimate(
            source, llm="echo", output=tmp_path / "o.jsonl", param={"max_new_tokens": 4}
        )
        left.append(estimate.rows)
    assert left == sorted(left, reverse=True)
    assert len(set(left)) == 3
    run = stillhouse.run(source, **options)
    assert [row["generations"] for row in run] == [[f"row {number}"] for number in range(60)]


def run_fragile(tmp_path: Path, prompts: list[str], workers: int = 2, **fields: Any) -> list[dict[str, Any]]:
    source = write(tmp_path / "in.jsonl", prompts)
    stillhouse.run(
        source, llm=worker_llms.Fragile(**fields), output=tmp_path / "o.jsonl", executor="processes",
        workers=workers, show_bar=False, max_failures=0,
    )  # fmt: skip
    return read_jsonl(tmp_path / "o.jsonl")


@pytest.mark.parametrize(
    ("word", "reason", "workers"), [("die", "status 1", 1), ("kill", "killed by SIGKILL", 3)]
)
def test_rows_that_end_their_worker_fail_alone(tmp_path: Path, word: str, reason: str, workers: int) -> None:
    """Their neighbours are done, and asked again only if their worker died; and the run ends."""
    prompts = [f"{word if number in (10, 21) else 'row'} {number}" for number in range(30)]
    notes = tmp_path / "notes"
    rows = run_fragile(tmp_path, prompts, workers, notes=notes)
    asked = [line.split(" ", 1) for line in notes.read_text().splitlines()]
    dead = {process for process, text in asked if word in text}
    for text in prompts:
        processes = [process for process, other in asked if other == text]
        assert {*processes[:-1]} <= dead
        assert len(processes) <= 10
    for number, row in enumerate(rows):
        if word in prompts[number]:
            assert row["error"]["kind"] == "server"
            assert reason in row["error"]["message"]
            assert "died 3 times" in row["error"]["message"]
        else:
            assert row["generations"] == [f"row {number}!"]


def test_a_bug_of_a_backend_and_an_error_that_does_not_pickle_fail_their_rows(tmp_path: Path) -> None:
    rows = run_fragile(tmp_path, ["bug", "odd one", "good"])
    assert "division by zero" in rows[0]["error"]["message"]
    assert "worker_llms.py" in rows[0]["error"]["message"]
    assert (rows[1]["error"]["kind"], rows[1]["error"]["message"]) == ("timeout", "odd: odd one")
    assert rows[2]["generations"] == ["good!"]


def test_a_refused_key_stops_the_run_as_without_workers(tmp_path: Path) -> None:
    prompts = [f"row {number}" for number in range(40)] + ["refuse"] + ["row"] * 400
    with pytest.raises(GenerationError, match="the key was refused"):
        run_fragile(tmp_path, prompts)
    source = write(tmp_path / "in.jsonl", prompts)
    estimate = stillhouse.estimate(source, llm=worker_llms.Fragile(), output=tmp_path / "o.jsonl")
    assert 0 < estimate.rows < 441  # what was finished is kept


def test_what_a_worker_logs_is_logged_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "stillhouse"):
        run_fragile(tmp_path, ["log this"])
    assert [record.getMessage() for record in caplog.records if record.name == "stillhouse.llm.fragile"] == [
        "noticed in a worker: log this"
    ]


def test_what_a_worker_prints_is_not_among_the_rows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_fragile(tmp_path, ["print"])[0]["generations"] == ["print!"]
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "printed in a worker" in printed.err


def test_a_report_counts_every_row_once_also_of_a_run_whose_worker_was_killed(tmp_path: Path) -> None:
    run_fragile(tmp_path, ["kill" if number == 7 else f"row {number}" for number in range(40)])
    reports = []
    for _ in range(2):
        program = [sys.executable, "-m", "stillhouse", "report", tmp_path / "o.jsonl"]
        ended = subprocess.run([*program, "--json"], capture_output=True, check=True)
        reports.append(json.loads(ended.stdout))
        subprocess.run(program, capture_output=True, check=True)
        assert (tmp_path / "o.jsonl.report.html").stat().st_size
    first, second = reports
    assert (first["rows"], first["done"], first["failed"]) == (40, 39, {"server": 1})
    assert {**first, "made": ""} == {**second, "made": ""}


def test_workers_draw_no_bars(tmp_path: Path) -> None:
    """The lines of a run with workers are those of one without: the process of the run alone reports."""
    source = write(tmp_path / "in.jsonl", [f"row {number}" for number in range(40)])
    told = []
    for number, more in enumerate(([], ["--executor", "processes", "--workers", "2"])):
        ended = subprocess.run(
            [*command(source, "echo"), "-o", tmp_path / f"{number}.jsonl", *more],
            capture_output=True, check=True,
        )  # fmt: skip
        assert not ended.stdout
        told.append([line.split()[0] for line in ended.stderr.splitlines() if b"per second" not in line])
    assert told[0] == told[1]


def test_a_system_without_room_for_a_process_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def popen(*arguments: Any, **options: Any) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", popen)
    said = refused(tmp_path, worker_llms.Fragile())
    assert "a worker cannot be started: Resource temporarily unavailable" in said
    assert "fewer" in said


class NotSendable:
    """Pickles; a worker has no such module."""


def test_what_a_worker_cannot_read_ends_the_run() -> None:
    """Else the worker would wait for ever, and the run for the worker."""
    NotSendable.__module__ = "module_of_this_process"
    sys.modules["module_of_this_process"] = sys.modules[__name__]
    try:
        with Workers(worker_llms.Fragile(), 2, ProcessWorker) as workers:
            chat = [{"role": "user", "content": NotSendable()}]
            with pytest.raises(GenerationError, match="a worker cannot read what it is sent"):
                list(workers.iter_finished([chat], on_error="yield"))
    finally:
        del sys.modules["module_of_this_process"]


def test_what_a_worker_says_and_nobody_can_read_is_its_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the run would wait for it for ever."""

    def read(stream: Any) -> Any:
        stream.read(1)
        raise pickle.UnpicklingError("pickle data was truncated")

    monkeypatch.setattr("stillhouse.jobs.executors.processes.read_message", read)
    said = refused(tmp_path, worker_llms.Fragile())
    assert "a worker died while it loaded the LLM: its message cannot be read: " in said


def refused(tmp_path: Path, llm: Any, **options: Any) -> str:
    """How a run is refused; nothing was written."""
    source = write(tmp_path / "in.jsonl", ["a", "b"])
    options = {"executor": "processes", "workers": 2, **options}
    with pytest.raises((ConfigurationError, GenerationError)) as caught:
        stillhouse.run(source, llm=llm, output=tmp_path / "o.jsonl", show_bar=False, **options)
    assert not (tmp_path / "o.jsonl").exists()
    return str(caught.value)


def test_what_cannot_work_is_one_error(tmp_path: Path) -> None:
    assert "there is no executor 'proceses'" in refused(tmp_path, "echo", executor="proceses")
    assert "'processes'" in refused(tmp_path, "echo", executor="proceses")
    assert "stillhouse-ray" in refused(tmp_path, "echo", executor="ray")
    assert "takes no address" in refused(tmp_path, "echo", executor="processes:4")
    assert "names no address" in refused(tmp_path, "echo", executor="ray:")
    assert "at least 1" in refused(tmp_path, "echo", workers=0)
    assert "1,000,000 workers are more than a run can use" in refused(tmp_path, "echo", workers=1_000_000)
    assert "field callback of Fragile" in refused(tmp_path, worker_llms.Fragile(callback=lambda: None))
    assert "field callback of Locked" in refused(tmp_path, worker_llms.Locked())

    class Local(worker_llms.Fragile):
        pass

    assert "Local is defined in a function, where workers cannot find it" in refused(tmp_path, Local())
    with worker_llms.Fragile() as loaded:
        assert "Fragile is loaded, and each worker loads a copy" in refused(tmp_path, loaded)
    assert not list(tmp_path.glob("*.run.db"))
    assert "there is no such model" in refused(tmp_path, worker_llms.Fragile(fails_loading=True))
    assert "ended with status 7" in refused(tmp_path, worker_llms.Fragile(dies_loading=True))


def test_a_class_of_the_script_itself_is_refused(tmp_path: Path) -> None:
    """A worker does not run the script: it would start workers of its own."""
    script = tmp_path / "script.py"
    script.write_text(
        "import stillhouse\n"
        "class Mine(stillhouse.LLM):\n"
        "    @property\n"
        "    def model_name(self):\n"
        "        return 'mine'\n"
        "    def generate(self, inputs, num_generations=1):\n"
        "        return [stillhouse.prepare_output(['x'])] * len(inputs)\n"
        "stillhouse.run(['a'], llm=Mine(), executor='processes')\n"
    )
    ended = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert ended.returncode == 1
    assert "Mine is defined in the script itself, which workers do not run" in ended.stderr


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    """So does one in a folder whose modules have the names of others."""
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong module')\n")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    script = folder / "script.py"
    script.write_text(
        "import stillhouse\n"
        "print('once')\n"
        "run = stillhouse.run(['a', 'b'], llm='echo', executor='processes', workers=2)\n"
        "print([row['generations'] for row in run])\n"
    )
    ended = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert ended.stdout == "once\n[['a'], ['b']]\n", ended.stderr


def test_the_key_of_the_environment_reaches_the_workers_and_is_in_no_command_line(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = worker_llms.Counted(
        model="m", base_url=f"http://127.0.0.1:{server.port}", api_key="sk-secret-of-the-worker"
    )
    lines: list[bytes] = []
    started = subprocess.Popen

    class Watched(started):  # type: ignore[type-arg, valid-type, misc]
        def __init__(self, arguments: Any, **options: Any) -> None:
            lines.append(json.dumps([*map(str, arguments), str(options)]).encode())
            super().__init__(arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    source = write(tmp_path / "in.jsonl", ["a", "b"])
    stillhouse.run(
        source, llm=llm, output=tmp_path / "o.jsonl", executor="processes", workers=2, show_bar=False
    )
    assert len(lines) == 2
    assert not any(b"sk-secret" in line for line in lines)
    assert len(server.asked) == 2


def test_an_executor_generates_for_one_iteration_after_the_other() -> None:
    """A ceiling ends an iteration when there is no room for a row, and the next one begins with it."""
    with Workers(worker_llms.Fragile(), 2, ProcessWorker) as workers:
        for count in (1, 5, 100):
            chats = [[{"role": "user", "content": f"{number}"}] for number in range(count)]
            found = [finished for group in workers.iter_finished(chats) for finished in group]
            assert [(index, result["generations"]) for index, result, _ in found] == [
                (number, [f"{number}!"]) for number in range(count)
            ]


class Unplaced(WorkerHandle):
    """A worker that cannot start, and reports it; or reports nothing."""

    def __init__(self, deliver: Deliver, refusal: ConfigurationError | None) -> None:
        if refusal is not None:
            deliver(Refused(refusal))
            deliver(Died(refusal.message))

    def send(self, message: Any) -> None:
        pass

    def close(self, *, at_once: bool) -> None:
        pass


@pytest.mark.parametrize("refusal", [None, ConfigurationError("this node has another version")])
def test_a_run_may_begin_before_all_workers_have(
    refusal: ConfigurationError | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A cluster may have no room for one of them, or no machine that it can work on."""
    starts: list[Setup] = []

    def launch(setup: Setup, deliver: Deliver) -> WorkerHandle:
        if setup.share.number == 0:
            return ProcessWorker(setup, deliver)
        starts.append(setup)
        if len(starts) == 1:
            return Unplaced(deliver, None)
        return Unplaced(deliver, refusal)

    chats = [[{"role": "user", "content": f"{number}"}] for number in range(100)]
    with Workers(worker_llms.Fragile(), 2, launch, enough=1) as workers:
        if refusal is not None:  # the one that waited is refused now
            workers._events.put((1, Died("it was not placed")))
        groups = workers.iter_finished(chats)
        found = [output["generations"] for group in groups for _, output, _ in group]
    assert found == [[f"{number}!"] for number in range(100)]
    if refusal is None:
        assert len(starts) == 1
    else:
        assert len(starts) == 3  # it is not tried for ever, however much the other one does
        said = [record.getMessage() for record in caplog.records if "cannot start" in record.getMessage()]
        assert said == [
            "a worker cannot start; the run continues with the others: this node has another version"
        ]


def test_workers_that_are_left_in_the_middle_end(tmp_path: Path) -> None:
    endless = ([{"role": "user", "content": f"{number}"}] for number in iter(int, 1))
    with Workers(worker_llms.Fragile(says_process=True), 2, ProcessWorker) as workers:
        groups = workers.iter_finished(endless)
        (_, output, _) = next(groups)[0]
        groups.close()
    process = int(output["generations"][0])
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no such signal")
class TestSignals:
    def start(self, tmp_path: Path, server: Server, *more: str) -> subprocess.Popen[bytes]:
        program = (
            "import sys, stillhouse.registry, worker_llms\n"
            "stillhouse.registry.default_registry().register('counted', worker_llms.Counted)\n"
            "from stillhouse.cli.app import app\n"
            "app(sys.argv[1:], prog_name='stillhouse')\n"
        )
        return subprocess.Popen(
            [
                sys.executable, "-c", program, "generate", tmp_path / "in.jsonl", "--llm", "counted:m",
                "--set", f"base_url=http://127.0.0.1:{server.port}", "-o", tmp_path / "o.jsonl",
                "--executor", "processes", "--workers", "2", "--max-concurrency", "16", *more,
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([HERE, *sys.path])},
            stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip

    def end(self, run: subprocess.Popen[bytes]) -> str:
        try:
            return run.communicate(timeout=60)[1].decode()
        finally:
            run.kill()

    def test_an_interrupt_lets_what_is_in_flight_end(self, tmp_path: Path, server: Server) -> None:
        write(tmp_path / "in.jsonl", [f"row {number}" for number in range(300)])
        server.hold()
        run = self.start(tmp_path, server)
        assert server.wait_for(16)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        os.kill(run.pid, 0)
        self.wait_for_stop(run)
        server.let_go()
        err = self.end(run)
        assert run.returncode == 130, err
        assert "16 finished rows are saved" in err
        assert len(server.asked) == 16
        err = self.end(self.start(tmp_path, server))
        assert "284" in err or len(server.asked) == 300
        assert len(set(server.asked)) == len(server.asked) == 300

    def wait_for_stop(self, run: subprocess.Popen[bytes]) -> None:
        """Wait until the run says that it stops."""
        assert isinstance(run.stderr, io.BufferedReader)
        said = b""
        while b"stopping" not in said:
            piece = run.stderr.read1(4096)
            assert piece, said
            said += piece

    def test_whatever_kills_the_run_ends_the_workers(self, tmp_path: Path, server: Server) -> None:
        write(tmp_path / "in.jsonl", [f"row {number}" for number in range(300)])
        server.hold()
        run = self.start(tmp_path, server)
        assert server.wait_for(16)
        workers = children_of(run.pid)
        assert len(workers) == 2
        run.kill()
        run.communicate()
        for worker in workers:
            wait_until_gone(worker)
        server.let_go()
        err = self.end(self.start(tmp_path, server))
        assert len(server.asked) <= 300 + 16, err
        rows = read_jsonl(tmp_path / "o.jsonl")
        assert [row["generations"] for row in rows] == [[f"row {number}!0"] for number in range(300)]

    def test_killed_workers_lose_no_row(self, tmp_path: Path, server: Server) -> None:
        """What was finished is not asked for again; what was in flight is, at most once for each kill."""
        write(tmp_path / "in.jsonl", [f"row {number}" for number in range(400)])
        run = self.start(tmp_path, server)
        kills = 6
        for number in range(kills):
            assert server.wait_for((number + 1) * 50)
            for worker in children_of(run.pid)[:1]:
                with contextlib.suppress(ProcessLookupError):  # it was killed before
                    os.kill(worker, signal.SIGKILL)
        err = self.end(run)
        assert run.returncode == 0, err
        rows = read_jsonl(tmp_path / "o.jsonl")
        assert [row["generations"] for row in rows] == [[f"row {number}!0"] for number in range(400)]
        # Of each worker: what was in flight, and what it had not handed over yet.
        assert len(server.asked) <= 400 + kills * 2 * 8


def children_of(process: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, check=False)
    return [int(line) for line in listed.stdout.split()]


def wait_until_gone(process: int) -> None:
    import time

    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        stat = Path(f"/proc/{process}/stat")
        if stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return  # an orphan whose new parent does not look
        time.sleep(0.05)
    raise AssertionError(f"process {process} is still there")
