"""Addresses of S3, with s3fs and a server that speaks S3: copies of a run's state, and files to read."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stillhouse.cli.app import app

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto")
boto3 = pytest.importorskip("boto3")

PATIENCE = 60.0

REGION = "us-east-1"

# A free port, and an end with the process of the tests.
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""

POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


@dataclass(frozen=True)
class Store:
    """A server with an account, which refuses every other one.

    Attributes:
        url: its address.
        key, secret: the login of the account.
    """

    url: str
    key: str
    secret: str

    @property
    def client(self) -> Any:
        login = {"aws_access_key_id": self.key, "aws_secret_access_key": self.secret}
        return boto3.client("s3", endpoint_url=self.url, region_name=REGION, **login)

    @property
    def variables(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=clean_environment(),
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            iam = boto3.client(
                "iam",
                endpoint_url=url,
                region_name=REGION,
                aws_access_key_id="first",
                aws_secret_access_key="first",
            )
            iam.create_user(UserName="runs")
            made = iam.create_access_key(UserName="runs")["AccessKey"]
            iam.put_user_policy(UserName="runs", PolicyName="s3", PolicyDocument=json.dumps(POLICY))
            # From now on, the server checks who asks.
            checking = urllib.request.Request(
                f"{url}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
            )
            with urllib.request.urlopen(checking) as answer:
                assert answer.status == 200
            yield Store(url, made["AccessKeyId"], made["SecretAccessKey"])
        finally:
            server.stdin.close()
            server.wait(PATIENCE)


@pytest.fixture
def bucket(store: Store, request: pytest.FixtureRequest) -> str:
    """A new bucket."""
    name = f"b{abs(hash(request.node.name))}"
    store.client.create_bucket(Bucket=name)
    return name


def clean_environment() -> dict[str, str]:
    """The environment without any login for S3."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    nothing = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return {**found, **nothing, "AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": REGION}


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


Start = Callable[..., subprocess.Popen[str]]
Command = Callable[..., Ended]


@pytest.fixture
def start(store: Store, tmp_path: Path) -> Iterator[Start]:
    """Starts the command as a process, with the login of the account unless a test gives another one."""
    started: list[subprocess.Popen[str]] = []

    def call(*arguments: object, login: dict[str, str] | None = None) -> subprocess.Popen[str]:
        variables = clean_environment() | (store.variables if login is None else login)
        process = subprocess.Popen(
            [sys.executable, "-m", "stillhouse", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=variables | {"XDG_CONFIG_HOME": str(tmp_path / "config")},
        )
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def command(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Runs the command in this process: s3fs takes seconds to import."""

    def call(*arguments: object, login: dict[str, str] | None = None) -> Ended:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in (clean_environment() | (store.variables if login is None else login)).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        s3fs.S3FileSystem.clear_instance_cache()  # which have the login of the last call
        with pytest.raises(SystemExit) as exited:
            app([str(argument) for argument in arguments], prog_name="stillhouse")
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Ended(int(exited.value.code or 0), captured.out, captured.err)

    yield call
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(prompts(*(f"row {number}" for number in range(12))))
    return path


def prompts(*texts: str) -> bytes:
    return "".join(json.dumps({"prompt": text}) + "\n" for text in texts).encode()


def keys(store: Store, bucket: str) -> list[str]:
    return [found["Key"] for found in store.client.list_objects_v2(Bucket=bucket).get("Contents", [])]


def until(holds: Callable[[], Any]) -> None:
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


def machine(tmp_path: Path, name: str) -> Path:
    """The output of a run on a machine, which is a folder."""
    (tmp_path / name).mkdir()
    return tmp_path / name / "out.jsonl"


# Copies of a state


def test_another_machine_resumes_from_the_copy(
    command: Command, store: Store, bucket: str, rows: Path, tmp_path: Path
) -> None:
    one, two, calm = (machine(tmp_path, name) for name in ("one", "two", "calm"))
    address = f"s3://{bucket}/copies/"
    first = command("generate", rows, "--llm", "echo", "-o", one, "--state-copy", address, "--limit", 5)
    assert (first.status, keys(store, bucket)) == (0, ["copies/out.jsonl.run.db.gz"]), first.err
    told = json.loads(command("status", one, "--json").out)["state_copy"]
    assert told["url"] == f"s3://{bucket}/copies/out.jsonl.run.db.gz"
    assert told["age"] >= 0
    assert told["problem"] is None
    shutil.rmtree(one.parent)
    second = command("generate", rows, "--llm", "echo", "-o", two, "--state-copy", address)
    assert second.status == 0, second.err
    assert f"state restored from s3://{bucket}/copies/out.jsonl.run.db.gz: the copy of " in second.err
    assert "5 finished rows" in second.err
    assert command("generate", rows, "--llm", "echo", "-o", calm).status == 0
    assert two.read_bytes() == calm.read_bytes()
    assert keys(store, bucket) == ["copies/out.jsonl.run.db.gz"]


def test_a_run_that_was_killed_is_resumed_on_another_machine(
    start: Start, command: Command, store: Store, bucket: str, rows: Path, tmp_path: Path
) -> None:
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    arguments = (rows, "--llm", "echo", "--set", "latency=0.5", "--state-copy", f"s3://{bucket}/copy.gz")
    process = start("generate", *arguments, "-o", one, "--max-concurrency", 1)
    until(lambda: "copy.gz" in keys(store, bucket) or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    assert process.wait(PATIENCE) == -signal.SIGKILL
    shutil.rmtree(one.parent)
    ended = command("generate", *arguments, "-o", two)
    assert ended.status == 0, ended.err
    assert f"state restored from s3://{bucket}/copy.gz: the copy of " in ended.err
    assert "may be generated and paid for again" in ended.err
    assert len(two.read_text().splitlines()) == 12
    assert [key for key in keys(store, bucket) if "partial" not in key] == ["copy.gz"]


def test_a_bucket_that_disappears_costs_a_warning(
    start: Start, command: Command, store: Store, bucket: str, rows: Path, tmp_path: Path
) -> None:
    output = machine(tmp_path, "one")
    process = start(
        "generate", rows, "--llm", "echo", "--set", "latency=0.2", "--max-concurrency", 1,
        "-o", output, "--state-copy", f"s3://{bucket}/copy.gz",
    )  # fmt: skip
    until(lambda: keys(store, bucket) == ["copy.gz"] or process.poll() is not None)
    store.client.delete_object(Bucket=bucket, Key="copy.gz")
    store.client.delete_bucket(Bucket=bucket)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert f"the last copy of the state was not written to s3://{bucket}/copy.gz: FileNotFoundError" in err
    assert len(output.read_text().splitlines()) == 12


def test_an_address_that_cannot_be_used_is_one_error_before_the_first_row(
    command: Command, store: Store, bucket: str, rows: Path, tmp_path: Path
) -> None:
    output = machine(tmp_path, "one")

    def refused(address: str, **login: str) -> str:
        ended = command(
            "generate", rows, "--llm", "echo", "-o", output, "--state-copy", address,
            login=store.variables | login,
        )  # fmt: skip
        assert (ended.status, ended.out, list(output.parent.iterdir())) == (1, "", []), ended.err
        assert ended.err.count("error:") == 1
        assert store.secret not in ended.err
        assert "SECRET" not in ended.err
        return ended.err

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # it does not listen
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        address = f"s3://{bucket}/copy.gz"
        err = refused("s3://no-such-bucket/copy.gz")
        assert "--state-copy: s3://no-such-bucket/copy.gz cannot be written: FileNotFoundError: " in err
        assert f"{address} cannot be read: PermissionError: " in refused(
            address, AWS_SECRET_ACCESS_KEY="SECRET-1"
        )
        assert "PermissionError: " in refused(address, AWS_ACCESS_KEY_ID="SECRET-2")
        assert f"{address} cannot be read: " in refused(
            address, AWS_ENDPOINT_URL=nobody, AWS_MAX_ATTEMPTS="1"
        )
        assert "cannot be read: " in refused(f"s3://me:SECRET-3@{bucket}/copy.gz")
    assert keys(store, bucket) == []


def test_an_object_that_stillhouse_did_not_make_is_left_alone(
    command: Command, store: Store, bucket: str, rows: Path, tmp_path: Path
) -> None:
    output = machine(tmp_path, "one")
    for content in (b"mine", b""):
        store.client.put_object(Bucket=bucket, Key="copy.gz", Body=content)
        ended = command(
            "generate", rows, "--llm", "echo", "-o", output, "--state-copy", f"s3://{bucket}/copy.gz"
        )
        assert (ended.status, list(output.parent.iterdir())) == (1, []), ended.err
        assert f"s3://{bucket}/copy.gz exists, and is not a copy that Stillhouse made" in ended.err
        assert store.client.get_object(Bucket=bucket, Key="copy.gz")["Body"].read() == content


# Files to read


def test_rows_are_read_from_a_bucket(command: Command, store: Store, bucket: str, tmp_path: Path) -> None:
    for name, content in {
        "in/1.jsonl": prompts("one"),
        "in/2.jsonl.gz": gzip.compress(prompts("two")),
        "in/notes.md": b"no rows",
        "other.csv": b"prompt\nthree\n",
    }.items():
        store.client.put_object(Bucket=bucket, Key=name, Body=content)

    def answers(address: str) -> list[str]:
        ended = command("generate", address, "--llm", "echo", "-o", "-")
        assert ended.status == 0, ended.err
        return [json.loads(line)["generations"][0] for line in ended.out.splitlines()]

    assert answers(f"s3://{bucket}/in") == ["one", "two"]
    assert answers(f"s3://{bucket}/*.csv") == ["three"]
    output = tmp_path / "out.jsonl"
    for address, login in (
        (f"s3://{bucket}/in/3.jsonl", {}),
        ("s3://no-such-bucket/in.jsonl", {}),
        (f"s3://{bucket}/in/1.jsonl", {"AWS_SECRET_ACCESS_KEY": "SECRET-1"}),
    ):
        ended = command("generate", address, "--llm", "echo", "-o", output, login=store.variables | login)
        assert (ended.status, list(tmp_path.glob("out*"))) == (1, []), ended.err
        assert address in ended.err
        assert "SECRET" not in ended.err
        assert store.secret not in ended.err
