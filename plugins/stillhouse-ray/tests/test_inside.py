"""Runs the tests that need a cluster, in a network of its own, and what is seen of a whole command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent

Inside = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"row {number}"}) + "\n" for number in range(30)))
    return path


def on_a_cluster(inside: Inside, name: str, *more: str) -> None:
    ended = inside("-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", HERE / name, *more)
    print(ended.stdout)
    found = re.search(r"^.*\b(\d+) passed.* in .*$", ended.stdout, re.M)
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-6000:]
    assert found is not None, ended.stdout[-2000:]


@pytest.mark.parametrize("name", ["inside_cluster.py", "inside_head.py"])
def test_clusters(inside: Inside, name: str) -> None:
    on_a_cluster(inside, name)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["inside_cluster.py", "inside_head.py"])
def test_clusters_and_random_deaths(inside: Inside, name: str) -> None:
    on_a_cluster(inside, name, "--soak")


def test_a_cluster_of_its_own_leaves_nothing(inside: Inside, rows: Path, tmp_path: Path) -> None:
    """Rows go to standard output, and nothing else does, although a worker is killed by a row of them."""
    with rows.open("a") as lines:
        lines.write(json.dumps({"prompt": "die"}) + "\n")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # Ray's sockets need a short path
    program = (
        "import sys, stillhouse.registry, ray_llms; "
        "stillhouse.registry.default_registry().register('fragile', ray_llms.Fragile); "
        "from stillhouse.cli.app import app; "
        "app(sys.argv[1:], prog_name='stillhouse')"
    )
    command = ["generate", rows, "--llm", "fragile", "-o", "-"]
    workers = ["--executor", "ray", "--workers", 2, "--max-failures", 0]
    ended = inside("-c", program, *command, *workers, TMPDIR=str(folder))
    assert ended.returncode == 3, ended.stderr  # a row has failed
    texts = [json.loads(line).get("generations") for line in ended.stdout.splitlines()]
    assert texts[:30] == [[f"row {number}!"] for number in range(30)]
    assert len(texts) in (30, 31)
    assert "(raylet)" not in ended.stderr
    folder.rmdir()  # it is empty
    marker = str(folder).encode()
    left = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/environ")
        if path.parent.name != str(os.getpid()) and marker in _read(path)
    ]
    assert not left


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
