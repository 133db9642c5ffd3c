"""The conformance kit: tests that a plugin behaves as the contract says.

Subclass `LLMConformance` (for a backend that asks a server, `HTTPConformance`; for hooks,
`HookConformance`, `ReaderConformance`, `WriterConformance` and `ExecutorConformance`) in a test module,
give it `make()`, and run pytest. Tests of your own may use its `ScriptedServer`. It needs the extra
`stillhouse[testing]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse._lazy import lazy_names

if TYPE_CHECKING:
    from stillhouse.testing.catalogue import all_rules as all_rules
    from stillhouse.testing.hook_suites import ExecutorConformance as ExecutorConformance
    from stillhouse.testing.hook_suites import HookConformance as HookConformance
    from stillhouse.testing.hook_suites import ReaderConformance as ReaderConformance
    from stillhouse.testing.hook_suites import WriterConformance as WriterConformance
    from stillhouse.testing.http_suite import HTTPConformance as HTTPConformance
    from stillhouse.testing.rule import ConformanceWarning as ConformanceWarning
    from stillhouse.testing.rule import Rule as Rule
    from stillhouse.testing.server import Reply as Reply
    from stillhouse.testing.server import ScriptedServer as ScriptedServer
    from stillhouse.testing.suite import LLMConformance as LLMConformance

# pytest loads the plugin of this package in every run; nothing else may be imported for it.
__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "catalogue": ["all_rules"],
        "hook_suites": ["ExecutorConformance", "HookConformance", "ReaderConformance", "WriterConformance"],
        "http_suite": ["HTTPConformance"],
        "rule": ["ConformanceWarning", "Rule"],
        "server": ["Reply", "ScriptedServer"],
        "suite": ["LLMConformance"],
    },
)
