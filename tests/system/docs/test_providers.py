"""The table that compares the backends, for what happens to be installed."""

from __future__ import annotations

from typing import Any, ClassVar

import importlib_metadata
import pytest
from pydantic import Field

import stillhouse
from stillhouse import AsyncLLM, Capability, FormattedInput, GenerateOutput
from stillhouse.http import HTTPLLM
from stillhouse.registry.policy import Policy
from stillhouse.typing import CAPABILITIES

from .steps import DOCS


class ServerLLM(HTTPLLM):
    """Asks a server."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "tools"})
    api_key_variable: ClassVar[str | None] = "SERVER_API_KEY"
    models_path: ClassVar[Any] = "models"

    prompt_caching: bool = Field(default=False, description="Whether to cache the prompt.")

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, reasoning_effort: str | None = None
    ) -> GenerateOutput:
        raise NotImplementedError


class FreeLLM(ServerLLM):
    """Asks a server of one's own."""

    api_key_required: ClassVar[bool] = False
    models_path: ClassVar[Any] = None


class CompositeLLM(AsyncLLM):
    """Can do what its members can."""

    @property
    def capabilities(self) -> frozenset[Capability]:  # type: ignore[override]
        return frozenset({"chat"})

    @property
    def model_name(self) -> str:
        return "composite"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        raise NotImplementedError


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(DOCS)
    import providers

    broken = importlib_metadata.EntryPoint("acme", "no_such_module_here:AcmeLLM", "stillhouse.llms")
    registry = stillhouse.Registry([broken], Policy())
    for name, cls in (("server", ServerLLM), ("free", FreeLLM), ("composite", CompositeLLM)):
        registry.register(name, cls)
    return "\n".join(providers.compared(registry))


def test_what_a_backend_declares_is_in_its_row(page: str) -> None:
    lines = [line for line in page.splitlines() if line.startswith("|")]
    header = [cell.strip() for cell in lines[0].split("|")[1:-1]]
    rows = {}
    for line in lines[2:]:
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == len(header):
            rows[cells[0]] = dict(zip(header, cells, strict=True))
    assert header[0] == "name"
    server = rows["[`server`](backends/server.md)"]
    assert {name for name, cell in server.items() if cell == "✓"} == {
        "chat",
        "tools",
        "effort",
        "caching",
        "models",
    }
    free = rows["[`free`](backends/free.md)"]
    assert free["models"] == ""
    echo = rows["[`echo`](backends/echo.md)"]
    assert (echo["raw"], echo["effort"]) == ("✓", "")
    assert rows["[`composite`](backends/composite.md)"]["chat"] == "settings"


def test_a_broken_backend_has_no_row_and_spoils_nothing(page: str) -> None:
    assert "acme" not in page
    assert "`server`" in page


def test_every_capability_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    import providers

    assert sorted(providers.CAPABILITIES.values()) == sorted(CAPABILITIES)


def test_the_key_of_a_backend_is_named_and_whether_it_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    import providers

    assert providers.key_of(ServerLLM) == "`SERVER_API_KEY`"
    assert providers.key_of(FreeLLM) == "`SERVER_API_KEY`, optional"
    assert providers.key_of(stillhouse.get_llm("echo")) == ""
