"""The command line with these hooks and nothing else that is installed; nothing is fetched."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

# The library reads them when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="stillhouse-datasets-")

import pytest

import stillhouse
import stillhouse_datasets
from stillhouse.cli.app import app

atexit.register(shutil.rmtree, os.environ["HF_HOME"], True)


@dataclass
class Result:
    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command line in this process."""
    registry = stillhouse.Registry(entry_points=())
    registry.register_hooks("datasets", stillhouse_datasets)
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)

    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as exited:
            app([str(argument) for argument in arguments], prog_name="stillhouse")
        captured = capsys.readouterr()
        status = exited.value.code
        return Result(status if isinstance(status, int) else 0, captured.out, captured.err)

    return call
