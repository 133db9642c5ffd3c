"""What ends a run before its first row, with one error, and needs no cluster."""

from __future__ import annotations

import contextlib
import json
import platform
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse import ConfigurationError
from stillhouse_ray.nodes import difference, environment_of, versions_for
from stillhouse_ray.settings import RaySettings

pytest.importorskip("ray")

sys.path.insert(0, str(Path(__file__).parent))

from ray_llms import Fragile

from stillhouse_ray.executor import RayExecutor


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"prompt": "one"}) + "\n")
    return path


def refused(rows: Path, **options: Any) -> ConfigurationError:
    output = rows.with_name("out.jsonl")
    with pytest.raises(ConfigurationError) as raised:
        stillhouse.run(rows, output=output, show_bar=False, **{"llm": "echo", "executor": "ray", **options})
    assert not output.exists()
    return raised.value


@pytest.mark.parametrize("address", ["banana", "host:99999", "http://host:6379", "host:port", "auto:1:2"])
def test_what_is_no_address_is_refused(rows: Path, address: str) -> None:
    error = refused(rows, executor=f"ray:{address}")
    assert address in error.message
    assert "ray:HOST:PORT" in error.hint


def test_an_address_where_nobody_listens_is_refused(rows: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # it does not listen
        port = taken.getsockname()[1]
        error = refused(rows, executor=f"ray:127.0.0.1:{port}")
    assert error.message.startswith(f"there is no Ray cluster at 127.0.0.1:{port}: ")
    assert "ray status" in error.hint


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_an_address_where_something_else_listens_is_refused(rows: Path, answer: bytes) -> None:
    """Ray itself would try for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                stream, _ = server.accept()
                stream.recv(100)
                stream.sendall(answer)
                stream.close()

        threading.Thread(target=serve, daemon=True).start()
        port = server.getsockname()[1]
        error = refused(rows, executor=f"ray:127.0.0.1:{port}")
    assert error.message == f"there is no Ray cluster at 127.0.0.1:{port}: something else listens there"


def test_a_cluster_that_was_killed_is_not_waited_for(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves a file with its address."""
    folder = tmp_path / "ray"
    folder.mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (folder / "ray_current_cluster").write_text(f"{address}\n")
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)
        error = refused(rows, executor="ray:auto")
    assert error.message.startswith(f"there is no Ray cluster at {address}: ")
    assert "ray start --head" in error.hint


def test_a_client_that_is_not_installed_is_refused(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setattr("stillhouse_ray.addresses._speaks_http2", lambda _: True)
        error = refused(rows, executor=f"ray:ray://127.0.0.1:{server.getsockname()[1]}")
    assert error.message.startswith("Ray's client cannot be used: ")
    assert "ray[client]" in error.hint


def test_no_workers_are_refused(rows: Path) -> None:
    assert "workers" in refused(rows, workers=0).message


def test_an_llm_that_cannot_be_sent_is_refused(rows: Path) -> None:
    error = refused(rows, llm=Fragile(callback=threading.Lock()))
    assert "the field callback of Fragile cannot be pickled" in error.message


def test_a_broken_ray_is_one_error(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text('raise ImportError("no such library")\n')
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from stillhouse.cli import main; "
        f"sys.argv = ['stillhouse', 'generate', {str(rows)!r}, '--llm', 'echo', '-o', {str(tmp_path / 'out.jsonl')!r}, "
        "'--executor', 'ray']; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "Ray cannot be imported: ImportError: no such library" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_named_devices_are_refused() -> None:
    class Engine(Fragile):
        cuda_devices: Any = (0,)

    with pytest.raises(ConfigurationError, match="names the devices of one machine"):
        RayExecutor(Engine(), None, 1, RaySettings())


ABOUT = {
    "python": platform.python_version(),
    "executable": "/opt/python",
    "node": "node-7",
    "process": 7,
    "versions": {"stillhouse": "0.1.0", "stillhouse-openai": "0.1.0"},
}


@pytest.mark.parametrize(
    ("what", "needs", "said"),
    [
        ({"python": "2.7.18"}, {}, ["node-7", "Python 2.7.18", platform.python_version()]),
        ({}, {"stillhouse": "9.8.7"}, ["node-7", "stillhouse is version 0.1.0", "9.8.7", "/opt/python"]),
        (
            {},
            {"stillhouse-x": "1.2"},
            ["node-7", "stillhouse-x is not installed", "install stillhouse-x==1.2 there"],
        ),
    ],
    ids=["python", "core", "plugin"],
)
def test_a_worker_that_differs_is_refused_by_both_versions(
    what: dict[str, Any], needs: dict[str, str], said: list[str]
) -> None:
    error = difference(needs, {**ABOUT, **what})
    assert error is not None
    assert all(text in f"{error.message} {error.hint}" for text in said)


def test_a_worker_with_another_patch_of_python_is_fine() -> None:
    python = ".".join([*platform.python_version().split(".")[:2], "999"])
    assert difference({"stillhouse": "0.1.0"}, {**ABOUT, "python": python}) is None


def test_the_plugins_of_an_llm_are_those_it_is_made_of() -> None:
    import pickle

    from stillhouse_openai import OpenAILLM

    nested = Fragile(callback=[OpenAILLM(model="m")])
    assert set(versions_for(pickle.dumps(nested))) == {"stillhouse", "stillhouse-openai"}
    assert set(versions_for(pickle.dumps(Fragile()))) == {"stillhouse"}


def test_workers_get_the_key_and_the_address_of_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    from stillhouse_openai import OpenAILLM

    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "MINE", "OTHERS"):
        monkeypatch.setenv(name, f"value of {name}")
    nested = Fragile(callback={"member": OpenAILLM(model="m")})
    found = environment_of(nested, ["MINE", "NOT_SET"])
    assert found == {name: f"value of {name}" for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "MINE")}
    assert environment_of(OpenAILLM(model="m", api_key="own"), []).keys() == {"OPENAI_BASE_URL"}
