"""Where the weights of a model are, and what is said where they are not."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from stillhouse import ConfigurationError
from stillhouse.local import find_model, model_name_of


class Hub(types.ModuleType):
    """`huggingface_hub`, as far as it is used, without a network."""

    def __init__(self, answer: Path | Exception) -> None:
        super().__init__("huggingface_hub")
        self.answer = answer
        self.asked: list[tuple[str, str | None]] = []

    def snapshot_download(self, repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert not any(pattern.endswith((".bin", ".pt", ".gguf")) for pattern in allow_patterns)
        self.asked.append((repo, revision))
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}", encoding="utf-8")
    return made


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    made = tmp_path / "weights.gguf"
    made.write_bytes(b"GGUF" + bytes(20))
    return made


def test_a_folder_with_a_config_is_a_model(folder: Path) -> None:
    assert find_model(str(folder)) == folder


def test_a_gguf_file_is_a_model_for_an_engine_that_reads_it(gguf: Path) -> None:
    assert find_model(str(gguf), gguf=True) == gguf
    with pytest.raises(ConfigurationError, match="does not read") as raised:
        find_model(str(gguf))
    assert "safetensors" in raised.value.hint


@pytest.mark.parametrize("reads_gguf", [True, False])
def test_a_folder_without_a_config_is_refused_with_what_to_give(
    tmp_path: Path, reads_gguf: bool, gguf: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"no config\.json") as raised:
        find_model(str(tmp_path), gguf=reads_gguf)
    assert ("weights.gguf" in raised.value.hint) == reads_gguf


@pytest.mark.parametrize(("name", "content"), [("a.gguf", b"nope"), ("a.gguf", b""), ("a.txt", b"text")])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="GGUF"):
        find_model(str(file), gguf=True)


@pytest.mark.parametrize(
    "model", ["nowhere", "./a/b", "a/b/c", "/no/such", "owner/file.gguf", "a\0b", "x" * 5000, ""]
)
def test_what_is_neither_a_path_nor_a_repository_is_refused_without_asking_the_hub(
    model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    hub = Hub(AssertionError("asked"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(ConfigurationError) as raised:
        find_model(model)
    assert raised.value.hint
    assert hub.asked == []


def test_a_repository_is_downloaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(folder)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert find_model("owner/name", revision="v1") == folder
    assert hub.asked == [("owner/name", "v1")]


def test_a_hub_that_does_not_answer_is_one_error_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ConnectionError("[Errno -2] Name or service not known\nand many lines more")
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(error))
    with pytest.raises(ConfigurationError, match="Name or service not known") as raised:
        find_model("owner/name")
    assert "many lines" not in raised.value.message
    assert "network" in raised.value.hint


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigurationError) as raised:
        find_model("owner/name")
    assert "stillhouse install huggingface-hub" in raised.value.hint


@pytest.mark.parametrize(
    ("model", "name"),
    [("owner/name", "name"), ("/a/b/", "b"), ("x/y.gguf", "y"), (r"C:\models\m.gguf", "m"), ("/", "/")],
)
def test_a_model_is_named_after_its_file_or_folder(model: Any, name: str) -> None:
    assert model_name_of(model) == name


def test_a_gguf_file_of_a_repository_is_downloaded_for_an_engine_that_reads_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[dict[str, str]] = []

    def download(**which: str) -> str:
        asked.append(which)
        return str(tmp_path / "file.gguf")

    library = types.ModuleType("huggingface_hub")
    library.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    model = "owner/na.me/folder/file.gguf"
    assert find_model(model, revision="v1", gguf=True) == tmp_path / "file.gguf"
    assert asked == [{"repo_id": "owner/na.me", "filename": "folder/file.gguf", "revision": "v1"}]
    for other, reads in ((model, False), ("./owner/name/file.gguf", True), ("owner/name/.hidden.gguf", True)):
        with pytest.raises(ConfigurationError, match="there is no model"):
            find_model(other, gguf=reads)


def test_an_engine_of_gguf_files_alone_looks_into_no_folder_and_fetches_no_whole_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(AssertionError("asked")))
    assert find_model(str(tmp_path), gguf=True, folders=False) == tmp_path  # the engine refuses it itself
    with pytest.raises(ConfigurationError, match="there is no file owner/name") as raised:
        find_model("owner/name", gguf=True, folders=False)
    assert "owner/name/file.gguf" in raised.value.hint
