"""The names that this project provides: those built in, and those of its other packages.

The packages are for the hint when a name is not installed. Nothing here is imported or preferred.
"""

from __future__ import annotations

__all__ = ["BUILT_IN", "PACKAGES", "SOURCES"]

BUILT_IN: dict[str, str] = {"echo": "stillhouse.echo:EchoLLM"}
"""The built-in LLMs: name to `module:attribute`."""

PACKAGES: dict[str, str] = {
    "anthropic": "stillhouse-anthropic",
    "anyscale": "stillhouse-openai",
    "azure-openai": "stillhouse-openai",
    "groq": "stillhouse-openai",
    "llamacpp": "stillhouse-llamacpp",
    "openai": "stillhouse-openai",
    "together": "stillhouse-openai",
    "vllm-server": "stillhouse-openai",
}
"""The distribution that provides an LLM, by the LLM's name."""

SOURCES: dict[str, str] = {"datasets": "stillhouse-datasets"}
"""The distribution that opens a source or a target of bulk runs, by what stands before the colon."""
