"""Stillhouse: one contract for every language model, and the backends that are installed for it.

Everything public is here, and imported when it is first used: `import stillhouse` discovers
nothing and imports no backend.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillhouse.async_llm import AsyncLLM
    from stillhouse.cuda import CudaDevicePlacementMixin
    from stillhouse.echo import EchoLLM
    from stillhouse.errors import (
        ConfigurationError,
        GenerationError,
        OfflineBatchNotFinishedError,
        PluginError,
        StillhouseError,
        UnknownLLMError,
        UnsupportedError,
    )
    from stillhouse.hookspecs import hookimpl
    from stillhouse.llm import LLM
    from stillhouse.magpie import MagpieChatTemplateMixin
    from stillhouse.outputs import compute_tokens, merge_responses, prepare_output
    from stillhouse.parameters import RuntimeParameter
    from stillhouse.registry import PluginInfo, Registry, default_registry
    from stillhouse.structured import StructuredOutputMixin, normalize_structured_output
    from stillhouse.typing import (
        Capability,
        ChatItem,
        FormattedInput,
        GenerateOutput,
        HiddenState,
        Logprob,
        StandardInput,
        StructuredInput,
        StructuredOutput,
    )

__all__ = [
    "LLM",
    "AsyncLLM",
    "Capability",
    "ChatItem",
    "ConfigurationError",
    "CudaDevicePlacementMixin",
    "EchoLLM",
    "FormattedInput",
    "GenerateOutput",
    "GenerationError",
    "HiddenState",
    "Logprob",
    "MagpieChatTemplateMixin",
    "OfflineBatchNotFinishedError",
    "PluginError",
    "PluginInfo",
    "Registry",
    "RuntimeParameter",
    "StandardInput",
    "StillhouseError",
    "StructuredInput",
    "StructuredOutput",
    "StructuredOutputMixin",
    "UnknownLLMError",
    "UnsupportedError",
    "available_llms",
    "compute_tokens",
    "create",
    "default_registry",
    "get_llm",
    "hookimpl",
    "merge_responses",
    "normalize_structured_output",
    "prepare_output",
]

_HOMES = {
    "stillhouse.async_llm": ["AsyncLLM"],
    "stillhouse.cuda": ["CudaDevicePlacementMixin"],
    "stillhouse.echo": ["EchoLLM"],
    "stillhouse.errors": [
        "ConfigurationError",
        "GenerationError",
        "OfflineBatchNotFinishedError",
        "PluginError",
        "StillhouseError",
        "UnknownLLMError",
        "UnsupportedError",
    ],
    "stillhouse.llm": ["LLM"],
    "stillhouse.magpie": ["MagpieChatTemplateMixin"],
    "stillhouse.outputs": ["compute_tokens", "merge_responses", "prepare_output"],
    "stillhouse.parameters": ["RuntimeParameter"],
    "stillhouse.registry": ["PluginInfo", "Registry", "default_registry"],
    "stillhouse.hookspecs": ["hookimpl"],
    "stillhouse.structured": ["StructuredOutputMixin", "normalize_structured_output"],
    "stillhouse.typing": [
        "Capability",
        "ChatItem",
        "FormattedInput",
        "GenerateOutput",
        "HiddenState",
        "Logprob",
        "StandardInput",
        "StructuredInput",
        "StructuredOutput",
    ],
}

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        import importlib_metadata

        return importlib_metadata.version("stillhouse")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def create(spec: str, **fields: Any) -> LLM:
    """A new LLM of the default registry, not loaded yet.

    Args:
        spec: `NAME` or `NAME:MODEL`, such as `openai:gpt-5-mini`.
        fields: the fields of the LLM, as `stillhouse show NAME` lists them.

    Raises:
        UnknownLLMError: nothing of that name is installed, or it is switched off.
        PluginError: it is installed and unusable; the report says why and what to try.
        ConfigurationError: a field has a wrong name or value.
    """
    from stillhouse.registry import default_registry

    return default_registry().create(spec, **fields)


def get_llm(name: str) -> type[LLM]:
    """The class of an LLM in the default registry; errors as `create`."""
    from stillhouse.registry import default_registry

    return default_registry().get_llm(name)


def available_llms() -> list[PluginInfo]:
    """Every LLM that the default registry knows, in whatever state, without importing any."""
    from stillhouse.registry import default_registry

    return default_registry().available_llms()
