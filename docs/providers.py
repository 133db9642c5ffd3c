"""The page that compares what the installed backends can do, in one table."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tables import code, table

from stillhouse.errors import PluginError
from stillhouse.llm import LLM
from stillhouse.registry import Registry, default_registry
from stillhouse.typing import Capability

__all__ = ["page"]

INTRODUCTION = """\
---
hide:
  - toc
---

# What each backend can do

Made from the backends that are installed where this site was built, as they declare it; the conformance kit
holds every one of them to what it declares. Their fields and parameters are on [their own page](backends.md).
`stillhouse list --available` lists what else could be installed.
"""

LEGEND = """\
A ✓ means that the API or the engine has it, and the backend passes it on. What a backend lacks is refused
before anything is sent, and never ignored. `settings` means that it depends on the settings of the backend.
What all of them have, such as chats, has no column.

| column | what it says |
| --- | --- |
| key | the environment variable of the API key |
| raw | a prompt is continued as it is, without a chat template |
| states | the hidden states of an input |
| n | one call makes several generations; without it, several are as many calls |
| JSON, regex, choice | the answer is held to a JSON schema, a pattern, a list of choices |
| batches | [offline batches](offline-batches.md): hours later, for less |
| effort | `reasoning_effort` says how much to think |
| caching | `prompt_caching` has the prompt cached, where the provider does not do so of its own accord |
| models | `stillhouse models NAME` lists the models |
"""

CAPABILITIES: dict[str, Capability] = {
    "chat": "chat",
    "raw": "raw_prompt",
    "images": "images",
    "tools": "tools",
    "n": "num_generations",
    "seed": "seed",
    "logprobs": "logprobs",
    "states": "hidden_states",
    "JSON": "json_schema",
    "regex": "regex",
    "choice": "choice",
    "batches": "offline_batch",
}

YES, NO, DEPENDS = "✓", "", "settings"


def page(registry: Registry | None = None) -> str:
    """The Markdown of the page."""
    rows = []
    registry = registry or default_registry()
    for info in registry.available_llms():
        try:
            cls = registry.get_llm(info.name)
        except PluginError:
            continue  # the gallery shows what is wrong with it
        if info.name not in {row[0] for row in rows}:
            rows.append((info.name, *cells(cls)))
    header = ("name", *CAPABILITIES, *OTHERS, "key")
    # A column in which all are alike tells nothing.
    told = [place for place in range(len(header)) if len({row[place] for row in rows}) > 1]
    lines = table(
        tuple(header[place] for place in told),
        [
            tuple(f"[{code(row[0])}](backends.md#{row[0]})" if place == 0 else row[place] for place in told)
            for row in rows
        ],
    )
    return "\n".join([INTRODUCTION, '<div class="compared" markdown>', "", *lines, "</div>", "", LEGEND])


def cells(cls: type[LLM]) -> tuple[str, ...]:
    """What a backend's class declares, in the order of the columns after the name."""
    declared: Any = cls.capabilities
    if not isinstance(declared, frozenset):  # a property
        can = [DEPENDS] * len(CAPABILITIES)
    else:
        can = [YES if capability in declared else NO for capability in CAPABILITIES.values()]
    return (*can, *(YES if has(cls) else NO for has in OTHERS.values()), key_of(cls))


def key_of(cls: type[LLM]) -> str:
    """The variable of the key; nothing where there is none."""
    variable = inspect.getattr_static(cls, "api_key_variable", None)
    if not isinstance(variable, str):
        return NO
    return code(variable) if getattr(cls, "api_key_required", True) else f"{code(variable)} if wanted"


def has_effort(cls: type[LLM]) -> bool:
    return "reasoning_effort" in cls.generation_parameters().parameters


def has_caching(cls: type[LLM]) -> bool:
    return "prompt_caching" in cls.model_fields


def lists_models(cls: type[LLM]) -> bool:
    return cls.list_models is not LLM.list_models and getattr(cls, "models_path", "own") is not None


OTHERS: dict[str, Callable[[type[LLM]], bool]] = {
    "effort": has_effort,
    "caching": has_caching,
    "models": lists_models,
}
