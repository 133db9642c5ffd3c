"""What tests in several folders need."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .environments import Environment, build_wheels

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write what is checked in for comparison anew, and pass"
    )


def pytest_configure() -> None:
    """Let the processes of tests be ended by SIGHUP: under nohup they would ignore it, as this one does."""
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_IGN:
        signal.signal(hangup, signal.SIG_DFL)


@pytest.fixture
def rewriting(request: pytest.FixtureRequest) -> bool:
    """Whether a test shall write what it compares with, after a deliberate change."""
    return bool(request.config.getoption("--rewrite"))


@pytest.fixture(scope="session")
def core_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core, built as a wheel from this checkout."""
    folder = tmp_path_factory.mktemp("wheels")
    build_wheels(folder, ROOT / "core")
    (wheel,) = folder.glob("stillhouse-*.whl")
    return wheel


@pytest.fixture(scope="session")
def workshop(core_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What the author of a plugin has: an environment with the core, and the tools that check one."""
    made = Environment.make(tmp_path_factory.mktemp("workshop") / "environment")
    made.install(f"{core_wheel}[http,schema,testing]", "-r", ROOT / "tests/author-requirements.txt")
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium, which is started once for a module's tests."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on the path")
    with playwright.sync_playwright() as started:
        # Root, as in a container, has no sandbox; the pages are our own.
        try:
            found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"{CHROMIUM} does not start: {error}")
        yield found
        found.close()
