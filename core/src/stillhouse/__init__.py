"""Stillhouse: one contract for every language model, and the backends that are installed for it.

Everything public is here, and imported when it is first used: `import stillhouse` discovers
nothing and imports no backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillhouse import _defaults, _deprecated
from stillhouse._lazy import lazy_names

if TYPE_CHECKING:
    from stillhouse._settings.digest import digest as digest
    from stillhouse._settings.digest import shaping_fields as shaping_fields
    from stillhouse._settings.runtime import RuntimeParameter as RuntimeParameter
    from stillhouse._settings.runtime import RuntimeParametersMixin as RuntimeParametersMixin
    from stillhouse._settings.secrets import is_secret as is_secret
    from stillhouse._settings.serialization import Serializable as Serializable
    from stillhouse._settings.serialization import read_settings as read_settings
    from stillhouse._settings.serialization import without_secrets as without_secrets
    from stillhouse.async_llm import AsyncLLM as AsyncLLM
    from stillhouse.echo import EchoLLM as EchoLLM
    from stillhouse.errors import ConfigurationError as ConfigurationError
    from stillhouse.errors import GenerationError as GenerationError
    from stillhouse.errors import OfflineBatchNotFinishedError as OfflineBatchNotFinishedError
    from stillhouse.errors import PluginError as PluginError
    from stillhouse.errors import StillhouseError as StillhouseError
    from stillhouse.errors import UnknownLLMError as UnknownLLMError
    from stillhouse.errors import UnsupportedError as UnsupportedError
    from stillhouse.hookspecs import hookimpl as hookimpl
    from stillhouse.jobs.launch.result import Run as Run
    from stillhouse.jobs.launch.row_generator import RowGenerator as RowGenerator
    from stillhouse.jobs.launch.run import arun as arun
    from stillhouse.jobs.launch.run import estimate as estimate
    from stillhouse.jobs.launch.run import run as run
    from stillhouse.llm import LLM as LLM
    from stillhouse.local.cuda import CudaDevicePlacementMixin as CudaDevicePlacementMixin
    from stillhouse.local.magpie import MagpieChatTemplateMixin as MagpieChatTemplateMixin
    from stillhouse.outputs import compute_tokens as compute_tokens
    from stillhouse.outputs import merge_responses as merge_responses
    from stillhouse.outputs import prepare_output as prepare_output
    from stillhouse.protocols import OutputColumns as OutputColumns
    from stillhouse.protocols import Row as Row
    from stillhouse.protocols import RowReader as RowReader
    from stillhouse.protocols import RowWriter as RowWriter
    from stillhouse.protocols import RunInfo as RunInfo
    from stillhouse.protocols import RunSummary as RunSummary
    from stillhouse.registry import PluginInfo as PluginInfo
    from stillhouse.registry import Registry as Registry
    from stillhouse.registry import default_registry as default_registry
    from stillhouse.structured import StructuredOutputMixin as StructuredOutputMixin
    from stillhouse.structured import normalize_structured_output as normalize_structured_output
    from stillhouse.typing import Capability as Capability
    from stillhouse.typing import ChatItem as ChatItem
    from stillhouse.typing import ChatType as ChatType
    from stillhouse.typing import FormattedInput as FormattedInput
    from stillhouse.typing import GenerateOutput as GenerateOutput
    from stillhouse.typing import HiddenState as HiddenState
    from stillhouse.typing import ImageContent as ImageContent
    from stillhouse.typing import ImageUrl as ImageUrl
    from stillhouse.typing import InstructorStructuredOutputType as InstructorStructuredOutputType
    from stillhouse.typing import LLMLogprobs as LLMLogprobs
    from stillhouse.typing import LLMOutput as LLMOutput
    from stillhouse.typing import LLMStatistics as LLMStatistics
    from stillhouse.typing import Logprob as Logprob
    from stillhouse.typing import ModelInfo as ModelInfo
    from stillhouse.typing import OutlinesStructuredOutputType as OutlinesStructuredOutputType
    from stillhouse.typing import StandardInput as StandardInput
    from stillhouse.typing import StructuredInput as StructuredInput
    from stillhouse.typing import StructuredOutput as StructuredOutput
    from stillhouse.typing import StructuredOutputType as StructuredOutputType
    from stillhouse.typing import TextContent as TextContent
    from stillhouse.typing import TokenCount as TokenCount

_lazy, _, _names = lazy_names(
    __name__,
    {
        "async_llm": ["AsyncLLM"],
        "echo": ["EchoLLM"],
        "errors": [
            "ConfigurationError",
            "GenerationError",
            "OfflineBatchNotFinishedError",
            "PluginError",
            "StillhouseError",
            "UnknownLLMError",
            "UnsupportedError",
        ],
        "hookspecs": ["hookimpl"],
        "jobs.launch.result": ["Run"],
        "jobs.launch.row_generator": ["RowGenerator"],
        "jobs.launch.run": ["arun", "estimate", "run"],
        "llm": ["LLM"],
        "local.cuda": ["CudaDevicePlacementMixin"],
        "local.magpie": ["MagpieChatTemplateMixin"],
        "outputs": ["compute_tokens", "merge_responses", "prepare_output"],
        "protocols": ["OutputColumns", "Row", "RowReader", "RowWriter", "RunInfo", "RunSummary"],
        "registry": ["PluginInfo", "Registry", "default_registry"],
        "_settings.runtime": ["RuntimeParameter", "RuntimeParametersMixin"],
        "_settings.digest": ["digest", "shaping_fields"],
        "_settings.secrets": ["is_secret"],
        "_settings.serialization": ["Serializable", "read_settings", "without_secrets"],
        "structured": ["StructuredOutputMixin", "normalize_structured_output"],
        "typing": [
            "Capability",
            "ChatItem",
            "ChatType",
            "FormattedInput",
            "GenerateOutput",
            "HiddenState",
            "ImageContent",
            "ImageUrl",
            "InstructorStructuredOutputType",
            "LLMLogprobs",
            "LLMOutput",
            "LLMStatistics",
            "Logprob",
            "ModelInfo",
            "OutlinesStructuredOutputType",
            "StandardInput",
            "StructuredInput",
            "StructuredOutput",
            "StructuredOutputType",
            "TextContent",
            "TokenCount",
        ],
    },
)

__all__ = sorted([*_names, "available_llms", "create", "get_llm"])

_deprecated.install()
_defaults.set_default_backends(lambda: _lazy("default_registry")())


def __getattr__(name: str) -> Any:
    if name == "__version__":
        import importlib_metadata

        return importlib_metadata.version("stillhouse")
    return _lazy(name)


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

    Examples:
        >>> llm = stillhouse.create("echo:my-name", latency=0.01)
        >>> llm.model_name
        'my-name'
    """
    from stillhouse.registry import default_registry

    return default_registry().create(spec, **fields)


def get_llm(name: str) -> type[LLM]:
    """Return the class of an LLM in the default registry; errors are those of `create`."""
    from stillhouse.registry import default_registry

    return default_registry().get_llm(name)


def available_llms() -> list[PluginInfo]:
    """Every LLM that the default registry knows, in whatever state, without importing any."""
    from stillhouse.registry import default_registry

    return default_registry().available_llms()
