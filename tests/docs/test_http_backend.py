"""The page on backends that ask a server: its backend passes its tests, which run as it says."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse import LLM
from stillhouse.http import HTTPLLM, StructuredHTTPLLM
from stillhouse.http.batches import BatchHTTPLLM

from .steps import DOCS, commands, steps

PAGE = DOCS / "write-an-http-backend.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the page."""
    for path, text in steps(PAGE):
        if path not in ("", "$"):
            (tmp_path / path).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.skipif(importlib.util.find_spec("llmock") is None, reason="pip install llmock")
def test_the_backend_passes_its_tests(folder: Path) -> None:
    ((_, transcript),) = [step for step in steps(PAGE) if step[0] == "$"]
    install, test = (shlex.split(command) for command, _ in commands(transcript))
    assert install[:4] == ["python", "-m", "pip", "install"], "what it installs is here already"
    result = subprocess.run(
        [sys.executable, *test[1:]], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "8 passed" in result.stdout


def test_the_backend_is_as_small_as_it_is_said_to_be(folder: Path) -> None:
    assert len((folder / "my_cohere.py").read_text(encoding="utf-8").splitlines()) < 100


# Of the contract itself, and what a backend calls instead of writing it.
NOT_ITS_OWN = {
    "api_url", "batch_output", "cancel_offline_batch", "check_input", "form_of", "load", "model_name",
    "offline_batch_generate", "open_offline_batch", "post", "request", "split", "unload",
}  # fmt: skip


def test_every_member_that_a_backend_may_write_is_in_the_table() -> None:
    members = {
        name
        for cls in (HTTPLLM, StructuredHTTPLLM, BatchHTTPLLM)
        for name in [*vars(cls), *(cls.__class_vars__ - LLM.__class_vars__)]
        if not name.startswith("_") and name not in HTTPLLM.model_fields
    }
    members -= {*NOT_ITS_OWN, *(name for name in members if name.startswith("model_"))}
    table = "".join(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:1] == "|")
    assert {"auth_headers", "base_path", "form_fields"} <= members
    assert sorted(name for name in members if f"`{name}" not in table) == []
