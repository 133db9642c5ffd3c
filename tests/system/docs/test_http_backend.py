"""The page on backends that ask a server: `examples/stillhouse-my-cohere` is what it makes, and the table is whole."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import stillhouse
from stillhouse import LLM
from stillhouse.http import HTTPLLM
from stillhouse.http.batches import BatchHTTPLLM
from stillhouse.scaffold import Package, write

from .steps import DOCS, blocks

PAGE = DOCS / "write-an-http-backend.md"
EXAMPLE = DOCS.parent / "examples/stillhouse-my-cohere"

# What tools leave behind, there and here.
LEFT_BEHIND = {"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", "build", "dist"}


def follow(folder: Path) -> None:
    """Write the files of the page into a folder, over those that the command made."""
    for block in blocks(PAGE):
        if block.path:
            (folder / block.path).write_text(block.text, encoding="utf-8")
        elif block.language == "toml":
            project = folder / "stillhouse-my-cohere/pyproject.toml"
            text, count = re.subn(
                r"^test = .*\n", block.text, project.read_text(encoding="utf-8"), flags=re.M
            )
            assert count == 1
            project.write_text(text, encoding="utf-8")


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and not LEFT_BEHIND & set(path.relative_to(folder).parts)
    }


def test_the_example_is_what_the_page_makes(tmp_path: Path, rewriting: bool) -> None:
    made = write(Package("my-cohere", "http", stillhouse.__version__), tmp_path)
    follow(tmp_path)
    if rewriting:
        shutil.rmtree(EXAMPLE, ignore_errors=True)
        shutil.copytree(made, EXAMPLE)
    assert files(made) == files(EXAMPLE), "pytest tests/system/docs --rewrite writes it anew"


def test_the_example_is_as_small_as_it_is_said_to_be() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (EXAMPLE / "src").rglob("*.py")]
    assert len(sources) == 2
    assert sum(len(text.splitlines()) for text in sources) < 100


# Of the contract itself, and what a backend calls instead of writing it.
NOT_ITS_OWN = {
    "agenerate_streamed", "api_url", "batch_output", "cancel_offline_batch", "check_batch_input", "check_input", "complete", "exchange",
    "form_of", "list_models", "load", "makes_several", "model_name", "offline_batch_generate",
    "open_offline_batch", "post", "request", "seconds_waited", "split", "unload",
}  # fmt: skip


def test_page_table_has_every_member_a_backend_may_override() -> None:
    members = {
        name
        for cls in BatchHTTPLLM.__mro__
        if cls.__module__.startswith("stillhouse.http.")
        for name in [*vars(cls), *(getattr(cls, "__class_vars__", set()) - LLM.__class_vars__)]
        if not name.startswith("_") and name not in HTTPLLM.model_fields
    }
    members -= {*NOT_ITS_OWN, *(name for name in members if name.startswith("model_"))}
    table = "".join(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:1] == "|")
    assert {"auth_headers", "base_path", "form_fields"} <= members
    assert sorted(name for name in members if f"`{name}" not in table) == []
