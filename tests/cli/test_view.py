"""`stillhouse view` as a command: its address, its end, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

import stillhouse

from .conftest import Result, write_rows

Start = Callable[..., subprocess.Popen[str]]
Run = Callable[..., Result]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": f"row {number}"} for number in range(3)])
    stillhouse.run(source, llm="echo", output=tmp_path / "out.jsonl")
    return tmp_path / "out.jsonl"


def test_view_prints_the_address_serves_and_ends_with_ctrl_c(output: Path, start: Start) -> None:
    process = start("view", output)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:")
    with urlopen(f"{address}api/rows") as answer:
        rows = json.load(answer)["rows"]
    assert [row["answers"][0]["text"] for row in rows] == ["row 0", "row 1", "row 2"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.rstrip() == "showing the run of out.jsonl; press Ctrl-C to stop"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGTERM")
def test_view_ends_with_a_request_to_end(output: Path, start: Start) -> None:
    process = start("view", output)
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    assert process.wait(60) == 130


def test_browser_gets_an_address_that_leads_to_the_page_once(
    output: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\necho "$1" > {tmp_path}/opened.part\nmv {tmp_path}/opened.part {tmp_path}/opened\n'
    )
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    process = start("view", output, "--open")
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    while not (tmp_path / "opened").exists():  # the browser is a process of its own
        assert process.poll() is None
    opened = (tmp_path / "opened").read_text().strip()
    token = address.split("/")[3]
    assert token not in opened  # other users can read the arguments of a process
    with urlopen(opened) as page:
        assert page.url == address
    with pytest.raises(HTTPError, match="404"):
        urlopen(opened)


def test_view_opens_no_browser_without_a_terminal(
    output: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER", str(tmp_path / "missing"))
    monkeypatch.setenv("DISPLAY", ":0")
    process = start("view", output)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert "browser" not in process.communicate(timeout=60)[1]


def test_port_in_use_is_one_error(output: Path, run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("view", output, "--port", port)
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith(f"error: the port {port} is in use")
    assert "give another --port, or leave it out for a free one" in result.err


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_wrong_port_is_a_wrong_option(output: Path, run: Run, port: str) -> None:
    assert run("view", output, "--port", port).status == 2


def test_no_option_makes_it_listen_elsewhere(output: Path, run: Run) -> None:
    for option in ("--host", "--address", "--bind"):
        assert run("view", output, option, "0.0.0.0").status == 2


def test_without_the_library_the_remedy_is_named(
    output: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp.web", None)
    result = run("view", output)
    assert (result.status, result.out) == (1, "")
    assert "needs aiohttp" in result.err
    assert 'stillhouse install "stillhouse[view]"' in result.err


def test_what_is_no_run_is_one_error(tmp_path: Path, run: Run) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a"}])
    for name in (rows, tmp_path / "missing.jsonl"):
        result = run("view", name)
        assert (result.status, result.out) == (1, "")
        assert result.err.startswith("error: there is no run of this output")
        assert "give the OUTPUT of a stillhouse generate" in result.err


def test_help_and_other_commands_do_not_import_the_server(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from stillhouse.cli.app import app\n"
        "try:\n    app(['view', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] == 'aiohttp' or 'viewing' in name))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("options", "needed"), [({}, set()), ({"template": "{{ prompt }}"}, {"jinja2"})])
def test_view_imports_no_more_than_it_needs(
    tmp_path: Path, options: dict[str, str], needed: set[str]
) -> None:
    """Half of the time until the first row was the import of libraries that a viewer has no use for."""
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}])
    stillhouse.run(source, llm="echo", output=tmp_path / "out.jsonl", **options)  # type: ignore[arg-type]
    code = (
        "import sys, os, json, importlib_metadata\n"
        "importlib_metadata.distributions = lambda **_: []\n"  # a plugin imports what it likes
        "import urllib.request\n"
        "from stillhouse.cli.app import app\n"
        "def ask(address):\n"
        "    for name in ('', 'page.js', 'api/run', 'api/rows', 'api/row?row=1'):\n"
        "        with urllib.request.urlopen(address + name) as answer:\n"
        "            content = answer.read()\n"
        "    assert 'input' in json.loads(content), content\n"
        "    print('|', *sys.modules, flush=True)\n"
        "    os._exit(0)\n"
        "import stillhouse.cli.view\n"
        "stillhouse.cli.view.print_line = ask\n"
        f"app(['view', {str(tmp_path / 'out.jsonl')!r}, '--no-open'])\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    modules = set(ended.stderr.rpartition("|")[2].split())
    assert "aiohttp.web" in modules, ended.stderr[-2000:]
    heavy = {"pydantic", "pydantic_core", "jinja2", "yaml", "orjson", "rich", "pyarrow", "genai_prices"}
    assert modules & {*heavy, "stillhouse.llm", "stillhouse.http"} == needed
