"""`stillhouse keys`: API keys in the system's keyring, here one in memory."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import stillhouse
from stillhouse import ConfigurationError, FormattedInput, GenerateOutput
from stillhouse.http import HTTPLLM

keyring = pytest.importorskip("keyring")
pytest.importorskip("aiohttp")

KEY = "sk-0123456789abcdef"


class Memory(keyring.backend.KeyringBackend):  # type: ignore[misc]
    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.asked: list[str] = []
        self.error: Exception | None = None

    def get_password(self, service: str, username: str) -> str | None:
        self.asked.append(username)
        if self.error:
            raise self.error
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.error:
            raise self.error
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise keyring.errors.PasswordDeleteError


class KeyedLLM(HTTPLLM):
    api_key_variable: ClassVar[str | None] = "KEYED_API_KEY"
    default_base_url: ClassVar[str | None] = "http://127.0.0.1:9"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        raise AssertionError


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    names = tmp_path / "config" / "keys.json"
    monkeypatch.setattr("stillhouse._settings.stored_keys._names_file", lambda: names)
    monkeypatch.delenv("KEYED_API_KEY", raising=False)
    earlier, memory = keyring.get_keyring(), Memory()
    keyring.set_keyring(memory)
    stillhouse.default_registry().register("keyed", KeyedLLM)
    yield memory
    keyring.set_keyring(earlier)


@pytest.fixture
def put(run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(name: str, text: str = KEY) -> Any:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        return run("keys", "set", name)

    return put


def key_of(**fields: Any) -> str:
    return KeyedLLM(model="m", **fields).resolved_key


def test_a_stored_key_is_used_where_there_is_no_other(
    put: Any, memory: Memory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert key_of() == ""
    assert memory.asked == [], "nothing was stored"
    result = put("keyed", f"  {KEY}\n")
    assert (result.status, result.out) == (0, "")
    assert KEY not in result.err
    assert key_of() == KEY
    assert key_of(api_key="own") == "own"
    monkeypatch.setenv("KEYED_API_KEY", "environment")
    assert key_of() == "environment"
    assert json.loads((tmp_path / "config" / "keys.json").read_text()) == {"keys": ["KEYED_API_KEY"]}


def test_names_are_listed_and_keys_are_not(
    put: Any, run: Any, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no keys are stored" in run("keys", "list").err
    put("keyed")
    assert "wins" not in put("OTHER_KEY").err
    monkeypatch.setenv("OTHER_KEY", "x")
    assert "is set too, and wins" in put("OTHER_KEY").err
    result = run("keys", "list")
    assert [line.split(maxsplit=1) for line in result.out.splitlines()] == [
        ["KEY", "READ FROM"],
        ["KEYED_API_KEY", "the keyring"],
        ["OTHER_KEY", "the environment"],
    ]
    assert KEY not in result.out + result.err


def test_a_removed_key_is_gone(put: Any, run: Any, memory: Memory) -> None:
    put("keyed")
    assert run("keys", "remove", "keyed").status == 0
    assert (key_of(), memory.kept) == ("", {})
    result = run("keys", "remove", "KEYED_API_KEY")
    assert result.status == 1
    assert "no key is stored for KEYED_API_KEY" in result.err


def test_a_key_that_was_removed_elsewhere_can_be_removed_here(put: Any, run: Any, memory: Memory) -> None:
    put("keyed")
    memory.kept.clear()
    assert key_of() == ""
    assert run("keys", "remove", "keyed").status == 0
    assert "no keys are stored" in run("keys", "list").err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("keyd", KEY, "did you mean 'keyed'?"),
        ("echo", KEY, "echo reads no API key"),
        ("A KEY", KEY, "'A KEY' is not the name of an environment variable"),
        ("keyed", "\n", "the key is empty"),
        ("keyed", "sk-\u2026", "the key has characters that no key has"),
        ("keyed", "a\nb", "the key has characters that no key has"),
    ],
)
def test_what_cannot_be_stored_is_one_error(
    put: Any, memory: Memory, name: str, text: str, message: str
) -> None:
    result = put(name, text)
    assert result.status == 1
    assert message in result.err
    assert len(result.err.splitlines()) == 2
    assert memory.kept == {}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (keyring.errors.NoKeyringError("none"), "this system has no keyring that can be used"),
        (keyring.errors.KeyringLocked(f"locked {KEY}"), "the system's keyring refused: KeyringLocked"),
        (RuntimeError(KEY), "the system's keyring refused: RuntimeError"),
    ],
)
def test_a_keyring_that_refuses_is_one_error_and_no_key(
    put: Any, run: Any, memory: Memory, error: Exception, message: str
) -> None:
    put("keyed")
    memory.error = error
    assert key_of() == ""
    result = put("OTHER_KEY")
    assert result.status == 1
    assert message in result.err
    assert KEY not in result.err
    assert "OTHER_KEY" not in run("keys", "list").out


def test_without_the_library_the_error_says_how_to_get_it(
    put: Any, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("keyed")
    for name in ("keyring", "keyring.errors"):
        monkeypatch.setitem(sys.modules, name, None)
    assert key_of() == ""
    result = put("keyed")
    assert result.status == 1
    assert 'stillhouse install "stillhouse[keys]"' in result.err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"keys": 5}', '{"keys": [5, "a b"]}'])
def test_a_file_of_names_that_cannot_be_read_has_none(
    run: Any, memory: Memory, tmp_path: Path, content: str
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "keys.json").write_text(content)
    assert "no keys are stored" in run("keys", "list").err
    assert key_of() == ""


def test_a_folder_that_cannot_be_written_is_one_error(put: Any, memory: Memory, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("a file")
    result = put("keyed")
    assert result.status == 1
    assert "cannot be written" in result.err


def test_a_missing_key_says_how_to_store_one(memory: Memory) -> None:
    with pytest.raises(ConfigurationError) as caught:
        KeyedLLM(model="m").load()
    assert "stillhouse keys set KEYED_API_KEY" in caught.value.hint


def test_a_terminal_asks_and_does_not_show(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    environment = {
        **os.environ, "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        "XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path),
    }  # fmt: skip
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from stillhouse.cli import main; main()", "keys", "set", "SOME_KEY"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    got = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while b"SOME_KEY:" not in got and (block := os.read(ours, 1000)):
            got += block
        os.write(ours, f"{KEY}\n".encode())
        while block := os.read(ours, 1000):
            got += block
    os.close(ours)
    assert process.wait(60) == 0, got
    assert KEY.encode() not in got
    assert b"the key for SOME_KEY is stored" in got
