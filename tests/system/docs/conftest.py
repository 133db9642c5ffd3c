"""The built site, and one environment for all pages, in which each can install the plugins."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ...environments import build_wheels
from .steps import DOCS, ROOT

OTHERS = """
import importlib.metadata
for found in importlib.metadata.distributions():
    if any(point.group.startswith("stillhouse.") for point in found.entry_points):
        print(found.name)
"""


@pytest.fixture(scope="session")
def shared_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a shell in a new virtual environment that has the core of this checkout."""
    folder = tmp_path_factory.mktemp("docs")
    wheels = folder / "wheels"
    sources = [ROOT / "core", *(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
    build_wheels(wheels, *sources)
    venv.create(folder / "environment", with_pip=True)
    scripts = folder / "environment" / "bin"
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("STILLHOUSE_", "OPENAI_", "ANTHROPIC_", "PYTHON", "VIRTUAL_ENV"))
    }
    variables = {
        **kept,
        "PATH": os.pathsep.join([str(scripts), kept["PATH"]]),
        "PIP_FIND_LINKS": str(wheels),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONUTF8": "1",
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CACHE_HOME": kept.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
    }
    subprocess.run([scripts / "pip", "install", "--quiet", "stillhouse"], env=variables, check=True)
    return variables


@pytest.fixture
def environment(shared_environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The shared environment; the plugins that a page installs are gone after it."""
    yield shared_environment
    found = subprocess.run(
        ["python", "-c", OTHERS], env=shared_environment, capture_output=True, text=True, check=True
    )
    names = sorted(set(found.stdout.split()) - {"stillhouse"})
    if names:
        subprocess.run(["pip", "uninstall", "--quiet", "--yes", *names], env=shared_environment, check=True)


@pytest.fixture(scope="session")
def site() -> Path:
    """The site, built as everybody builds it."""
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("pip install -r docs/requirements.txt")
    built = subprocess.run(
        [sys.executable, DOCS / "build.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return ROOT / ".site/html"


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
