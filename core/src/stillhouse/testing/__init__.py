"""The conformance kit: how somebody knows that a backend behaves as the contract says.

Subclass `LLMConformance` (of a backend that asks a server, `HTTPConformance`) in a test module,
give it `make()`, and run pytest. It needs the extra `stillhouse[testing]`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillhouse.testing.http_suite import HTTPConformance
    from stillhouse.testing.rule import ConformanceWarning, Rule, all_rules
    from stillhouse.testing.suite import LLMConformance

__all__ = ["ConformanceWarning", "HTTPConformance", "LLMConformance", "Rule", "all_rules"]

_HOME_OF = {
    "ConformanceWarning": "rule",
    "HTTPConformance": "http_suite",
    "LLMConformance": "suite",
    "Rule": "rule",
    "all_rules": "rule",
}


# pytest loads the plugin beside this in every run; nothing else shall be imported for it.
def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
