"""`Origin`: what the spans and metrics of an LLM have in common, found once for each LLM."""

from __future__ import annotations

import re
import weakref
from typing import TYPE_CHECKING

from stillhouse.errors import StillhouseError

if TYPE_CHECKING:
    from stillhouse import LLM

__all__ = ["Origin", "Origins", "shown_model"]

PROVIDERS = {
    "azure-openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertexai": "gcp.vertex_ai",
    "xai": "x_ai",
}
"""The conventions' names of providers, where the name of the backend is another."""

MAX_REMEMBERED = 256

_PATH = re.compile(r"(?:[/~.\\]|[A-Za-z]:[/\\])")


class Origin:
    """Where outputs come from.

    Attributes:
        provider: the provider, by the conventions.
        model: the name of the model.
    """

    __slots__ = ("_llm", "model", "provider")

    def __init__(self, llm: LLM) -> None:
        self._llm = weakref.ref(llm)
        try:
            name = llm.registry.name_of(type(llm))
        except StillhouseError:  # it is registered nowhere
            name = type(llm).__name__
        self.provider = PROVIDERS.get(name, name)
        self.model = shown_model(llm.model_name)

    def is_of(self, llm: LLM) -> bool:
        return self._llm() is llm


def shown_model(name: object) -> str:
    """Return the name of a model on one line; of the path of a file or a folder, its last part.

    The rest of a path may hold the name of a person.
    """
    text = "".join(character for character in str(name)[:500] if character.isprintable())
    if _PATH.match(text):
        text = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    return text[:100]


class Origins:
    """The origins of the LLMs in use."""

    def __init__(self) -> None:
        self._known: dict[int, Origin] = {}

    def of(self, llm: LLM) -> Origin:
        """Return the origin of an LLM."""
        origin = self._known.get(id(llm))
        if origin is None or not origin.is_of(llm):
            origin = self._known[id(llm)] = Origin(llm)
            while len(self._known) > MAX_REMEMBERED:
                self._known.pop(next(iter(self._known)), None)
        return origin
