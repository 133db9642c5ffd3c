"""The page on backends that ask a server: how little it takes, and whether it says all there is."""

from __future__ import annotations

from stillhouse import LLM
from stillhouse.http import HTTPLLM, StructuredHTTPLLM
from stillhouse.http.batches import BatchHTTPLLM

from .steps import DOCS, blocks

PAGE = DOCS / "write-an-http-backend.md"


def test_the_backend_is_as_small_as_it_is_said_to_be() -> None:
    (backend,) = [block.text for block in blocks(PAGE) if block.path == "my_cohere.py"]
    assert len(backend.splitlines()) < 100


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
