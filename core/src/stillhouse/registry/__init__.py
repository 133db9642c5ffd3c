"""Finding backends and hooks among the installed packages.

Importing this must not import pydantic or pluggy: listing plugins needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillhouse.registry.candidates import Candidate
from stillhouse.registry.info import PluginInfo, Status
from stillhouse.registry.policy import Policy
from stillhouse.registry.problems import CODES, Problem
from stillhouse.registry.registry import Registry, default_registry

__all__ = [
    "CODES",
    "Candidate",
    "PluginInfo",
    "Policy",
    "Problem",
    "Registry",
    "Status",
    "default_registry",
]

if TYPE_CHECKING:
    Trouble = Problem  # the old name; with `__getattr__`, every name would type
else:

    def __getattr__(name: str) -> Any:
        from stillhouse._deprecated import renamed

        return renamed(__name__, name)
