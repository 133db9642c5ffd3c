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
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray_llms import Fragile

import stillhouse
from stillhouse import ConfigurationError, hookimpl
from stillhouse.testing import ExecutorConformance, ScriptedServer
from stillhouse_ray import RayHooks
from stillhouse_ray.executor import RayExecutor
from stillhouse_ray.settings import RaySettings

SECONDS = 180
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


def write(path: Path, prompts: list[str]) -> Path:
    lines = [json.dumps({"id": number, "prompt": text}) + "\n" for number, text in enumerate(prompts)]
    path.write_text("".join(lines))
    return path


def until(holds: Callable[[], Any]) -> None:
    ends = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < ends, "it has not happened"
        time.sleep(0.02)


def run(folder: Path, name: str, llm: Any, **options: Any) -> bytes:
    output = folder / name
    stillhouse.run(folder / "in.jsonl", llm=llm, output=output, show_bar=False, **options)
    return output.read_bytes()


def both(folder: Path, llm: Callable[[], Any], **options: Any) -> tuple[bytes, bytes]:
    """What one process writes, and what two workers write."""
    return (
        run(folder, "one.jsonl", llm(), **options),
        run(folder, "ray.jsonl", llm(), executor="ray:auto", workers=2, **options),
    )


class TestRay(ExecutorConformance):
    executor = "ray"
    address = "auto"
    seconds = 120.0

    def make(self) -> object:
        return RayHooks()


def test_echo_writes_the_same(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [f"question {number}" for number in range(300)])
    one, workers = both(
        tmp_path, lambda: "echo", num_generations=3, max_failures=0, fields={"failure_rate": 0.2}
    )
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
        with pytest.raises(stillhouse.StillhouseError, match="token"):
            run(tmp_path, "less.jsonl", **llm, executor="ray:auto", workers=2, max_tokens_total=200)
        assert len(server.requests) - before < 60
    finally:
        server.close()


def test_hooks_are_called_here(tmp_path: Path) -> None:
    seen: list[int] = []

    class Seen:
        @hookimpl
        def after_generate(self, row: Any) -> None:
            seen.append(row.index)

    write(tmp_path / "in.jsonl", [f"question {number}" for number in range(20)])
    llm, registry = Fragile(), stillhouse.registry.Registry()
    registry.register_hooks("seen", Seen())
    llm.use_registry(registry)
    run(tmp_path, "ray.jsonl", llm, executor="ray:auto", workers=2)
    assert sorted(seen) == list(range(20))


def test_one_bad_row_fails_alone(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ["too long" if number == 100 else f"row {number}" for number in range(200)])
    one, workers = both(tmp_path, Fragile, max_failures=0)
    assert one == workers
    failed = [row for row in map(json.loads, workers.splitlines()) if row.get("error")]
    assert [row["id"] for row in failed] == [100]


@pytest.mark.soak
def test_rows_that_kill_their_worker_fail_and_their_neighbours_are_generated_once(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    prompts = ["die" if number in (10, 50, 51) else f"row {number}" for number in range(100)]
    write(tmp_path / "in.jsonl", prompts)
    content = run(tmp_path, "ray.jsonl", Fragile(notes=notes), executor="ray:auto", workers=2, max_failures=0)
    rows = [json.loads(line) for line in content.splitlines()]
    assert [row["id"] for row in rows if row.get("error")] == [10, 50, 51]
    assert all("the worker died" in json.dumps(row["error"]) for row in rows if row.get("error"))
    assert [row["generations"] for row in rows if not row.get("error")] == [
        [f"{text}!"] for text in prompts if text != "die"
    ]


def test_a_killed_worker_and_a_killed_node_lose_nothing(tmp_path: Path, cluster: Any) -> None:
    """First the worker of one node is killed, then the node of the other worker."""
    deaths(tmp_path, cluster, ["worker", "node"])


@pytest.mark.soak
@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("kind", ["worker", "node"])
def test_random_deaths(tmp_path: Path, cluster: Any, kind: str, number: int) -> None:
    deaths(tmp_path, cluster, [kind], seed=number)


def deaths(folder: Path, cluster: Any, kinds: list[str], seed: int = 0) -> None:
    gate, notes = folder / "gate", folder / "notes"
    count = 300
    generator = random.Random(seed)
    first = generator.randrange(40, 120)
    prompts = [f"wait {number}" if number > first else f"row {number}" for number in range(count)]
    write(folder / "in.jsonl", prompts)
    one = run(folder, "one.jsonl", Fragile())
    found: list[bytes] = []
    errors: list[BaseException] = []

    def generate() -> None:
        try:
            llm = Fragile(notes=notes, gate=gate)
            found.append(run(folder, "ray.jsonl", llm, executor="ray:auto", workers=2))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=generate)
    thread.start()
    try:
        for kind in kinds:
            until(lambda: errors or len(processes(notes)) >= 2)
            assert not errors, errors
            if kind == "worker":
                victim = generator.choice(sorted(processes(notes)))
                os.kill(victim, signal.SIGKILL)
                until(lambda: not Path(f"/proc/{victim}").exists())  # noqa: B023
            else:
                node = next(iter(cluster.worker_nodes))
                cluster.remove_node(node, allow_graceful=False)
                cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE)
        gate.touch()
        thread.join(SECONDS)
        assert not thread.is_alive()
    finally:
        gate.touch()
        thread.join(SECONDS)
    assert not errors, errors
    assert found == [one]


def lines(notes: Path) -> list[str]:
    return notes.read_text().splitlines() if notes.exists() else []


def processes(notes: Path) -> set[int]:
    """The workers that wait at the gate."""
    waiting = Counter(int(line.split()[0]) for line in lines(notes) if " wait " in line)
    return {process for process in waiting if Path(f"/proc/{process}").exists()}


def test_a_killed_command_is_resumed(tmp_path: Path, cluster: Any) -> None:
    killed_and_resumed(tmp_path, cluster)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(10))
def test_a_command_is_killed_anywhere(tmp_path: Path, cluster: Any, number: int) -> None:
    killed_and_resumed(tmp_path, cluster, seed=number)


def killed_and_resumed(folder: Path, cluster: Any, seed: int = 0) -> None:
    gate, notes = folder / "gate", folder / "notes"
    first = random.Random(seed).randrange(20, 200)
    write(folder / "in.jsonl", [f"wait {n}" if n > first else f"row {n}" for n in range(240)])
    one = run(folder, "one.jsonl", Fragile())
    code = (
        "import stillhouse, ray_llms; from pathlib import Path; "
        f"stillhouse.run({str(folder / 'in.jsonl')!r}, llm=ray_llms.Fragile(notes=Path({str(notes)!r}), "
        f"gate=Path({str(gate)!r}), max_concurrency=4), output={str(folder / 'ray.jsonl')!r}, show_bar=False, "
        f"executor='ray:{cluster.address}', workers=2)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as command:
        until(lambda: processes(notes) or command.poll() is not None)
        assert command.poll() is None, command.stdout and command.stdout.read()
        workers = processes(notes)
        command.kill()
        command.wait()
    until(lambda: not any(Path(f"/proc/{process}").exists() for process in workers))
    finished = {text for text in texts(notes) if text.startswith("row")}
    gate.touch()
    notes.unlink()
    llm = Fragile(notes=notes, gate=gate, max_concurrency=4)
    content = run(folder, "ray.jsonl", llm, executor="ray:auto", workers=2)
    assert content == one
    again = finished & texts(notes)
    assert len(again) <= 2 * (2 * 2 + 32)  # what the two workers had: in flight, waiting, or on its way back


def texts(notes: Path) -> set[str]:
    return {line.split(" ", 1)[1] for line in lines(notes)}


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
