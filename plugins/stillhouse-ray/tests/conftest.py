"""A network of its own for Ray: it has the loopback interface alone, so Ray binds to nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent

SECONDS = 1200
"""How long the programs in the network may take on a busy machine."""

IN_NETWORK = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]

Inside = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def network() -> list[str]:
    """The words before a command that runs in a network of its own."""
    pytest.importorskip("ray")
    try:
        tried = subprocess.run([*IN_NETWORK, "true"], capture_output=True, text=True, timeout=60)
    except OSError as error:
        pytest.skip(f"a network of its own cannot be made: {error}")
    if tried.returncode:
        pytest.skip(f"a network of its own cannot be made: {tried.stderr.strip()}")
    return IN_NETWORK


@pytest.fixture(scope="session")
def inside(network: list[str]) -> Inside:
    """Runs a Python program in the network."""

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_BACKEND_LOG_LEVEL": "error",
            **variables,
        }
        command = [*network, sys.executable, *map(str, arguments)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=environment,
            stdin=subprocess.DEVNULL,
        )

    return run
