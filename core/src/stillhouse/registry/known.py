"""Which package brings which name, for the hint when a name is not installed.

These are the packages of this project. Nothing here is imported or preferred.
"""

from __future__ import annotations

__all__ = ["PACKAGES", "SOURCES"]

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

SOURCES: dict[str, str] = {"datasets": "stillhouse-datasets"}
"""The same for sources and targets of bulk runs, by what stands before the colon."""
