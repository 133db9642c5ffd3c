"""What the installed backends can do, compared in one table."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tables import code, table

from stillhouse.async_llm import AsyncLLM
from stillhouse.errors import PluginError
from stillhouse.http import HTTPLLM
from stillhouse.llm import LLM
from stillhouse.registry import Registry, default_registry
from stillhouse.typing import Capability

__all__ = ["CAPABILITIES", "compared", "key_of"]

LEGEND = """\
✓ means that the API or the engine has it and the backend passes it on; an option that a backend lacks is
refused before anything is sent, never ignored. `settings` means that it depends on the backend's settings. A
column in which all backends are alike, such as chat, is left out.

| column | meaning |
| --- | --- |
| raw | continues a prompt as it is, without a chat template |
| states | returns the hidden states of an input |
| n | makes several generations in one call; other backends make one call for each |
| JSON, regex, choice | holds the answer to a JSON schema, a pattern, or a list of choices |
| batches | [offline batches](offline-batches.md): results within hours, for a lower price |
| effort | `reasoning_effort` sets how long the model thinks |
| caching | `prompt_caching` asks the provider to cache the prompt, where it does not do so by itself |
| stream | [`stream`](contract.md#streams) gives the text as it comes; other backends give it in one piece |
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


def compared(registry: Registry | None = None) -> list[str]:
    """The lines of the table and its legend."""
    rows = []
    registry = registry or default_registry()
    for info in registry.available_llms():
        try:
            cls = registry.get_llm(info.name)
        except PluginError:
            continue  # its own page shows what is wrong with it
        if info.name not in {row[0] for row in rows}:
            rows.append((info.name, *cells(cls)))
    header = ("name", *CAPABILITIES, *OTHERS)
    # A column in which all are alike says nothing.
    shown = [place for place in range(len(header)) if len({row[place] for row in rows}) > 1]
    lines = table(
        tuple(header[place] for place in shown),
        [
            tuple(f"[{code(row[0])}](backends/{row[0]}.md)" if place == 0 else row[place] for place in shown)
            for row in rows
        ],
    )
    return ['<div class="compared" markdown>', "", *lines, "</div>", "", *LEGEND.splitlines(), ""]


def cells(cls: type[LLM]) -> tuple[str, ...]:
    """What a backend's class declares, in the order of the columns after the name."""
    declared: Any = cls.capabilities
    if not isinstance(declared, frozenset):  # a property
        can = [DEPENDS] * len(CAPABILITIES)
    else:
        can = [YES if capability in declared else NO for capability in CAPABILITIES.values()]
    return (*can, *(YES if has(cls) else NO for has in OTHERS.values()))


def key_of(cls: type[LLM]) -> str:
    """The variable of the key; nothing where there is none."""
    variable = inspect.getattr_static(cls, "api_key_variable", None)
    if not isinstance(variable, str):
        return NO
    return code(variable) if getattr(cls, "api_key_required", True) else f"{code(variable)}, optional"


def has_effort(cls: type[LLM]) -> bool:
    return "reasoning_effort" in cls.generation_parameters().parameters


def has_caching(cls: type[LLM]) -> bool:
    return "prompt_caching" in cls.model_fields


def lists_models(cls: type[LLM]) -> bool:
    return cls.list_models is not LLM.list_models and getattr(cls, "models_path", "own") is not None


def streams(cls: type[LLM]) -> bool:
    """Whether an answer comes in pieces; every other backend gives it as one."""
    if issubclass(cls, HTTPLLM) and cls.agenerate_streamed is HTTPLLM.agenerate_streamed:
        return cls.stream_request_of is not HTTPLLM.stream_request_of
    if issubclass(cls, AsyncLLM):
        return cls.agenerate_streamed is not AsyncLLM.agenerate_streamed
    return cls.stream is not LLM.stream


OTHERS: dict[str, Callable[[type[LLM]], bool]] = {
    "effort": has_effort,
    "caching": has_caching,
    "stream": streams,
    "models": lists_models,
}
