"""The server of `stillhouse view`, by real requests: who is answered, and what about a run it answers."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.store.database import store_path
from stillhouse.jobs.viewing.server import ViewServer

from .viewed import Client, echo_run, fill, served, viewed

HOSTILE = "</script><img src=x onerror=alert(1)> \u2028 \u202eabc\u0000 \ud800 end"
IDS = [2**60 + number for number in range(5)]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    rows = [{"id": id, "prompt": f"Say {id}", "seed": 2**63 - 1} for id in IDS]
    with served(echo_run(tmp_path, rows, num_generations=2)) as found:
        yield found


# Who is answered


def test_page_and_its_files_are_served_with_a_strict_policy(client: Client) -> None:
    for name, kind in (("", "text/html"), ("page.css", "text/css"), ("page.js", "text/javascript")):
        status, headers, content = client.send(client.base + name)
        assert status == 200
        assert content
        assert headers["content-type"] == f"{kind}; charset=utf-8"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert b"http:" not in content
        assert b"https:" not in content


@pytest.mark.parametrize(
    "path",
    [
        "/", "/api/run", "/page.js", "/wrong-token/", "/wrong-token/api/run",
        "/%2e%2e/%2e%2e/etc/hostname", "/../../etc/hostname", "//etc/hostname", "/etc/hostname",
        "{base}../../../etc/hostname", "{base}%2e%2e/%2e%2e/etc/hostname", "{base}..%2f..%2fetc%2fhostname",
        "{base}/etc/hostname", "{base}out.jsonl", "{base}out.jsonl.run.db", "{base}link", "{base}viewer.py",
        "{base}page.css/../server.py", "{base}api", "{base}api/", "{base}text",
    ],
)  # fmt: skip
def test_no_other_address_leads_anywhere(client: Client, tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    status, _, content = client.send(path.format(base=client.base))
    assert status in (400, 404)
    secret = Path("/etc/hostname").read_bytes().strip() if Path("/etc/hostname").exists() else b""
    assert not secret or secret not in content
    assert client.base.strip("/").encode() not in content


@pytest.mark.parametrize(
    "host", ["example.com", "example.com:80", "127.0.0.1.example.com", "", "[::2]", "127.0.0.1:x"]
)
def test_name_of_another_site_is_refused(client: Client, host: str) -> None:
    status, _, content = client.send(client.base + "api/run", host=host)
    assert status in (400, 403)
    assert b"out.jsonl" not in content


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9000", "LOCALHOST", "[::1]:9000", "[::1]"])
def test_names_of_this_machine_are_answered_also_through_a_tunnel(client: Client, host: str) -> None:
    assert client.send(client.base + "api/run", host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(client: Client, method: str) -> None:
    assert client.send(client.base + "api/run", method)[0] == 405


def test_head_is_answered_without_a_body(client: Client) -> None:
    status, _, content = client.send(client.base, "HEAD")
    assert (status, content) == (200, b"")


def test_server_listens_on_the_loopback_alone(client: Client) -> None:
    assert client.host == "127.0.0.1"
    # Linux sends all of 127.0.0.0/8 to this machine: what is bound to every address answers there too.
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", client.port), timeout=5):
        pass


def test_address_for_a_browser_leads_to_the_page_once(tmp_path: Path) -> None:
    with viewed(echo_run(tmp_path, [{"prompt": "a"}])) as viewer, ViewServer(viewer) as server:
        client = Client(server.address_to_open())
        status, headers, _ = client.send(client.base)
        assert (status, headers["location"]) == (303, server.address)
        assert client.send(client.base)[0] == 404
        assert client.base not in server.address


def test_each_server_has_its_own_token(tmp_path: Path) -> None:
    output = echo_run(tmp_path, [{"prompt": "a"}])
    with viewed(output) as viewer, ViewServer(viewer) as one, ViewServer(viewer) as other:
        tokens = {address.split("/")[3] for address in (one.address, other.address)}
    assert len(tokens) == 2
    assert all(len(token) >= 32 for token in tokens)


def test_port_in_use_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with viewed(echo_run(tmp_path, [{"prompt": "a"}])) as viewer, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match=r"the port \d+ is in use") as caught:
            ViewServer(viewer, taken.getsockname()[1])
    assert "--port" in caught.value.hint


@pytest.mark.parametrize(
    "question", ["api/rows?after=x", "api/rows?after=1e3", "api/rows?before=3&text=a", "api/row", "api/row?row=0", "api/row?row=-3", f"api/row?row={'9' * 30}", "text?row=x"]
)  # fmt: skip
def test_wrong_parameters_are_refused(client: Client, question: str) -> None:
    status, _, content = client.send(client.base + question)
    assert status == 400
    assert json.loads(content)["error"]


# What is answered


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, (int, float)):
        yield value


def test_ids_of_64_bits_keep_their_digits(client: Client) -> None:
    answer = client.settled("api/rows")
    texts = [{column["name"]: column["text"] for column in row["input"]["columns"]} for row in answer["rows"]]
    assert [text["id"] for text in texts] == [str(id) for id in IDS]
    assert {text["seed"] for text in texts} == {str(2**63 - 1)}
    for number, id in enumerate(IDS, 1):
        assert client.search(column="id", value=str(id)) == [number]
        row = client.settled("api/row", row=number)
        assert {column["name"]: column["text"] for column in row["input"]["columns"]}["id"] == str(id)
        assert client.send(f"{client.base}text?row={number}&part=column&name=id")[2] == str(id).encode()
        # A browser reads every number as a float of 64 bits.
        assert all(abs(found) < 2**53 for found in (*numbers(row), *numbers(answer)))


def test_rows_have_prompt_answers_and_columns(client: Client) -> None:
    answer = client.settled("api/rows", limit=2)
    assert [row["row"] for row in answer["rows"]] == [1, 2]
    first = answer["rows"][0]
    assert [item["text"] for item in first["answers"]] == [f"Say {IDS[0]}"] * 2
    assert first["input"]["prompt"] == [{"role": "user", "text": f"Say {IDS[0]}", "length": 23}]
    assert not first["input"]["changed"]
    assert client.get("api/rows", after=answer["next"])["rows"][0]["row"] == 3
    assert [row["row"] for row in client.get("api/rows", before=4)["rows"]] == [1, 2, 3, 4]


def test_run_is_described(client: Client) -> None:
    facts = client.get("api/run")
    assert facts["name"] == "out.jsonl"
    assert (facts["state"], facts["working"], facts["rows"], facts["failed"]) == ("complete", False, 5, 0)
    assert facts["model"] == "echo"


def test_hostile_texts_are_whole_and_are_sent_as_plain_text(tmp_path: Path) -> None:
    huge = "<b>é</b>" * 2_500_000
    fill(
        tmp_path / "out.jsonl",
        [(0, {"generations": [HOSTILE, huge], "finish_reasons": [HOSTILE, None], "reasoning": [huge],
              "error": {"kind": HOSTILE.replace("\ud800", ""), "message": HOSTILE}})],
    )  # fmt: skip
    with served(tmp_path / "out.jsonl") as client:
        status, headers, content = client.send(f"{client.base}api/rows")
        assert status == 200
        assert len(content) < 100_000
        assert headers["content-type"].startswith("application/json")
        assert b"\xe2\x80\xa8" not in content  # U+2028 ends a line of JavaScript
        (row,) = json.loads(content)["rows"]
        assert row["answers"][0]["text"] == HOSTILE.replace("\ud800", "\\ud800")
        assert row["answers"][1]["length"] == len(huge) > 20 * 10**6 - 1
        assert len(row["answers"][1]["text"]) < 2000
        assert len(client.send(f"{client.base}api/row?row=1")[2]) < 200_000
        status, headers, content = client.send(f"{client.base}text?row=1&part=answer&name=1")
        assert content.decode() == huge
        assert headers["content-type"] == "text/plain; charset=utf-8"
        assert "sandbox" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        whole = client.send(f"{client.base}text?row=1&part=part&name=reasoning")[2]
        assert json.loads(whole) == [huge]


@pytest.mark.parametrize(
    "part", ["answer&name=9", "answer&name=-1", "answer&name=x", f"answer&name={'9' * 40}", "column&name=../../etc", "part&name=", "nothing", f"column&name={quote('/etc/hostname')}"]
)  # fmt: skip
def test_text_that_a_row_does_not_have_is_not_found(client: Client, part: str) -> None:
    assert client.send(f"{client.base}text?row=1&part={part}")[0] == 404
    assert client.send(f"{client.base}text?row=77&part={part}")[0] == 404


def test_path_in_a_column_is_a_text_and_not_a_file(tmp_path: Path) -> None:
    rows = [{"prompt": "look", "image": "/etc/hostname", "images": ["file:///etc/hostname"]}]
    with served(echo_run(tmp_path, rows)) as client:
        assert client.send(f"{client.base}text?row=1&part=column&name=image")[2] == b"/etc/hostname"


def test_viewing_creates_and_changes_no_file(tmp_path: Path) -> None:
    output = echo_run(tmp_path, [{"prompt": f"row {number}"} for number in range(60)])
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.iterdir()}
    with served(output) as client:
        client.settled("api/rows")
        client.settled("api/row", row=3)
        client.search(text="row 5", scope="prompt")
        client.get("api/progress")
        os.sync()
        now = {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.iterdir()}
    assert now == before
    assert store_path(output).name in now
