"""What holds for the tests of every plugin here, where several are installed in one environment."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted import Script, scripted


@pytest.fixture(autouse=True, scope="session")
def no_cache_answers(request: pytest.FixtureRequest) -> Iterator[None]:
    """The hooks of stillhouse-cache, where it is installed too, must not answer for a backend under test.

    So each plugin's tests run in a process of their own; those of the cache leave it switched on.
    """
    folders = {item.path.relative_to(request.config.rootpath).parts[1] for item in request.session.items}
    if "stillhouse-cache" in folders:
        assert folders == {"stillhouse-cache"}, "run the tests of stillhouse-cache by themselves"
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLHOUSE_DISABLE_PLUGINS", "stillhouse-cache")
        yield


class Aimock:
    """A running server.

    Attributes:
        url: its address, without a path.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def fixtures(self, fixtures: list[dict[str, Any]]) -> None:
        """Add what it answers: each has a `match` (such as `userMessage`) and a `response`."""
        self._control("fixtures", {"fixtures": fixtures})

    def reply(self, question: str, content: str, **response: Any) -> None:
        """Answer a chat whose last message has a text in it."""
        self.fixtures([{"match": {"userMessage": question}, "response": {"content": content, **response}}])

    def fail_once(self, status: int, message: str = "it broke", **headers: str) -> None:
        """Refuse the next request."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self._control("error", {"status": status, "body": {"message": message}, "headers": given})

    def requests(self) -> list[dict[str, Any]]:
        """The requests since the test began, each with its `path`, `headers`, `body` and `response`."""
        found = self._control("journal", None)
        assert isinstance(found, list)
        return found

    def reset(self) -> None:
        """Forget fixtures, requests and refusals."""
        self._control("reset", {})

    def _control(self, path: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.url}/__aimock/{path}", data, timeout=10) as answer:
            return json.load(answer)


@contextmanager
def _running(folder: Path) -> Iterator[Aimock | None]:
    """A server for as long as it is needed; `None` where aimock is not installed."""
    command = shutil.which("aimock")
    if command is None:
        yield None
        return
    (folder / "fixtures").mkdir()
    (folder / "fixtures" / "none.json").write_text('{"fixtures": []}')
    (folder / "aimock.json").write_text(json.dumps({"llm": {"fixtures": str(folder / "fixtures")}}))
    arguments = [command, "--config", str(folder / "aimock.json"), "--port", "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            line = next((line for line in process.stdout if "listening on" in line), None)
            assert line is not None, "aimock ended before it listened"
            yield Aimock(line.split()[-1])
        finally:
            process.kill()


@pytest.fixture(scope="session")
def _aimock_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aimock | None]:
    with _running(tmp_path_factory.mktemp("aimock")) as server:
        yield server


@pytest.fixture
def aimock(_aimock_server: Aimock | None) -> Aimock:
    """A server that speaks many providers' APIs, with nothing to answer yet."""
    if _aimock_server is None:
        pytest.skip("aimock is missing: npm install --global @copilotkit/aimock@1.43.0")
    _aimock_server.reset()
    return _aimock_server


@pytest.fixture
def script() -> Iterator[Script]:
    """A server that answers from a script."""
    with scripted() as server:
        yield server


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    monkeypatch.setattr("stillhouse.http.transport.session.backoff_seconds", lambda attempt: 0.0)
