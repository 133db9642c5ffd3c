"""Finding backends and hooks among the installed packages.

Importing this must not import pydantic or pluggy: listing plugins needs neither.
"""

from __future__ import annotations

from stillhouse.registry.candidates import Candidate
from stillhouse.registry.policy import Policy
from stillhouse.registry.problems import CODES, Trouble
from stillhouse.registry.registry import PluginInfo, Registry, Status, default_registry

__all__ = [
    "CODES",
    "Candidate",
    "PluginInfo",
    "Policy",
    "Registry",
    "Status",
    "Trouble",
    "default_registry",
]
