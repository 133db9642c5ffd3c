"""`LLMConformance`: all rules for every backend."""

from __future__ import annotations

from stillhouse.testing.rules.capabilities import CapabilityRules
from stillhouse.testing.rules.concurrency import ConcurrencyRules
from stillhouse.testing.rules.generations import GenerationRules
from stillhouse.testing.rules.inputs import InputRules
from stillhouse.testing.rules.lifecycle import LifecycleRules
from stillhouse.testing.rules.models import ModelListRules
from stillhouse.testing.rules.outputs import OutputRules
from stillhouse.testing.rules.packaging import PackagingRules
from stillhouse.testing.rules.settings import SettingsRules
from stillhouse.testing.rules.streams import StreamRules

__all__ = ["LLMConformance"]


class LLMConformance(
    PackagingRules,
    CapabilityRules,
    InputRules,
    StreamRules,
    ConcurrencyRules,
    SettingsRules,
    LifecycleRules,
    ModelListRules,
    GenerationRules,
    OutputRules,
):
    """The rules of the contract, as tests.

    Subclass it in a test module, in a class whose name begins with `Test`, give it `make()`, and
    run pytest.
    """
