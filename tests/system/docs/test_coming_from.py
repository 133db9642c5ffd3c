"""The tables of the pages about migrating lead to backends that exist, in the packages that have them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stillhouse.registry.known import PACKAGES

PAGES = sorted((Path(__file__).parents[3] / "docs").glob("from-*.md"))


def rows() -> list[tuple[str, list[str], str]]:
    """What people come from, the names, and the package, of each row of the tables of backends."""
    found, inside = [], False
    for line in "\n".join(page.read_text(encoding="utf-8") for page in PAGES).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[1:] == ["name", "package"]:
            inside = True
        elif inside and len(cells) == 3 and cells[2].startswith("`"):
            names = re.findall(r"`([^`]+)`", cells[1])
            found.append(
                (cells[0], [name for name in names if not name.startswith(("base_url", "--"))], cells[2])
            )
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:30])
def test_every_name_on_the_page_is_in_the_package_beside_it(row: tuple[str, list[str], str]) -> None:
    _, names, package = row
    assert names
    for name in names:
        assert PACKAGES[name.partition(":")[0]] == package.strip("`")


def test_every_backend_of_distilabel_is_on_the_page() -> None:
    known = {
        "AnthropicLLM", "AnyscaleLLM", "AzureOpenAILLM", "ClientvLLM", "CohereLLM", "GroqLLM",
        "InferenceEndpointsLLM", "LiteLLM", "LlamaCppLLM", "MistralLLM", "MixtureOfAgentsLLM", "MlxLLM",
        "OllamaLLM", "OpenAILLM", "TogetherLLM", "TransformersLLM", "VertexAILLM", "vLLM",
    }  # fmt: skip
    (page,) = (page for page in PAGES if page.name == "from-distilabel.md")
    table = page.read_text(encoding="utf-8").partition("## Backends")[2]
    assert known <= set(re.findall(r"`(\w+)", table))
