"""Deaths of the head of a cluster. `test_inside.py` runs this file in a network of its own.

Each test has a cluster of two nodes for itself: it does not survive.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster
from ray_llms import Fragile
from rounds import SECONDS, asked, lives, until, write

import stillhouse
from stillhouse.registry import default_registry

STORE = 100 * 2**20

HEAD_SECONDS = 3

COUNT = 200

PROGRAM = (
    "import sys, stillhouse.registry, ray_llms; "
    "stillhouse.registry.default_registry().register('fragile', ray_llms.Fragile); "
    "from stillhouse.cli.app import app; "
    "app(sys.argv[1:], prog_name='stillhouse')"
)


class Machines:
    """A cluster whose processes can be killed."""

    def __init__(self) -> None:
        head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.cluster.add_node(num_cpus=1, resources={"far": 1}, object_store_memory=STORE)
        self.cluster.wait_for_nodes(timeout=SECONDS)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def kill_head(self, *kinds: str) -> None:
        """Kill processes of the head by SIGKILL."""
        running = self.cluster.head_node.all_processes
        for kind in kinds:
            for found in running[kind]:
                os.kill(found.process.pid, signal.SIGKILL)
                found.process.wait()

    def end(self) -> None:
        """Kill what is left."""
        for node in [self.cluster.head_node, *self.cluster.worker_nodes]:
            node.kill_all_processes(check_alive=False, allow_graceful=False)


@pytest.fixture
def machines() -> Iterator[Machines]:
    default_registry().register("fragile", Fragile)
    made = Machines()
    yield made
    made.end()


class Command:
    """The command in a folder, with its state."""

    def __init__(self, folder: Path, moment: int) -> None:
        self.folder = folder
        self.notes, self.gate, self.output = folder / "notes", folder / "gate", folder / "out.jsonl"
        self.fields: dict[str, Any] = {
            "notes": self.notes,
            "gate": self.gate,
            "pause": 0.05,
            "max_concurrency": 8,
        }
        # Those after that moment end when the gate is open: the run does not, before the head is missed.
        prompts = [f"row {number}" if number < moment + 16 else f"wait {number}" for number in range(COUNT)]
        self.source = write(folder / "in.jsonl", prompts)
        config = folder / "config" / "stillhouse" / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(f"[hooks.ray]\nhead_seconds = {HEAD_SECONDS}\n")

    def start(self, executor: str, *more: str) -> subprocess.Popen[str]:
        fields = [word for name, value in self.fields.items() for word in ("--set", f"{name}={value}")]
        return subprocess.Popen(
            [
                sys.executable, "-c", PROGRAM, "generate", self.source, "--llm", "fragile", *fields,
                "-o", self.output, "--executor", executor, "--workers", "2", *more,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_CONFIG_HOME": str(self.folder / "config")},
        )  # fmt: skip

    def until_asked(self, count: int, running: subprocess.Popen[str]) -> None:
        until(lambda: len(asked(self.notes)) >= count or running.poll() is not None)
        assert running.poll() is None, running.communicate()

    def end(self, running: subprocess.Popen[str]) -> str:
        """Wait until it ends, and return what it said."""
        try:
            _, said = running.communicate(timeout=SECONDS)
        finally:
            running.kill()
        return said

    def resumes(self) -> None:
        """The same command with worker processes generates what is left, once, and writes the bytes of one process."""
        fields = {name: str(value) for name, value in self.fields.items()}
        left = stillhouse.estimate(self.source, llm="fragile", fields=fields, output=self.output).rows
        self.notes.unlink(missing_ok=True)
        self.gate.touch()
        running = self.start("processes")
        said = self.end(running)
        assert running.returncode == 0, said
        again = [text for _, text in asked(self.notes)]
        assert len(again) == len(set(again)) == left
        one = self.folder / "one.jsonl"
        stillhouse.run(self.source, llm="fragile", output=one, show_bar=False)
        assert self.output.read_bytes() == one.read_bytes()


def test_without_the_head_the_run_ends_and_loses_nothing(machines: Machines, tmp_path: Path) -> None:
    ended_and_resumed(machines, tmp_path, ("gcs_server", "raylet"), COUNT // 3)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(10))
def test_the_head_dies_at_any_moment(machines: Machines, tmp_path: Path, number: int) -> None:
    """With the node of this process, or as on another node without it."""
    kinds = (("gcs_server", "raylet"), ("gcs_server",), ("raylet", "gcs_server"))[number % 3]
    ended_and_resumed(machines, tmp_path, kinds, random.Random(number).randrange(COUNT - 40))


def ended_and_resumed(machines: Machines, folder: Path, kinds: tuple[str, ...], moment: int) -> None:
    command = Command(folder, moment)
    running = command.start(f"ray:{machines.address}")
    command.until_asked(moment, running)
    machines.kill_head(*kinds)
    said = command.end(running)
    assert running.returncode == 1, said
    problem = f"the head of the Ray cluster at {machines.address} did not answer for {HEAD_SECONDS} s"
    assert said.count(problem) == 1
    assert "run the same command again to resume" in said
    assert "Traceback" not in said
    assert "terminate" not in said  # Ray did not end the process
    before = {process for process, _ in asked(command.notes)}
    machines.end()
    until(lambda: not any(map(lives, before)))
    command.resumes()


@pytest.mark.soak
def test_the_head_dies_while_workers_are_placed(machines: Machines, tmp_path: Path) -> None:
    command = Command(tmp_path, COUNT)
    with (command.folder / "config/stillhouse/config.toml").open("a") as lines:
        lines.write("resources = { none = 1 }\n")
    running = command.start(f"ray:{machines.address}")
    assert running.stderr is not None
    said = ""
    while "has placed no worker yet" not in said:
        line = running.stderr.readline()
        assert line, said
        said += line
    machines.kill_head("gcs_server", "raylet")
    said += command.end(running)
    assert running.returncode == 1, said
    assert "did not answer for 3 s" in said
    assert "Traceback" not in said
    assert not command.output.exists()


@pytest.mark.soak
def test_the_head_dies_while_workers_end(machines: Machines, tmp_path: Path) -> None:
    """All is generated, so nothing is missing."""
    command = Command(tmp_path, COUNT)
    command.fields["holds_unload"] = True
    running = command.start(f"ray:{machines.address}")
    until(lambda: "unload" in {text for _, text in asked(command.notes)} or running.poll() is not None)
    machines.kill_head("gcs_server", "raylet")
    said = command.end(running)
    assert running.returncode == 0, said
    one = command.folder / "one.jsonl"
    stillhouse.run(command.source, llm="fragile", output=one, show_bar=False)
    assert command.output.read_bytes() == one.read_bytes()
