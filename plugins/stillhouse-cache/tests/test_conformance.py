"""The cache keeps every rule of the conformance kit."""

import pytest

from stillhouse.testing import HookConformance
from stillhouse_cache import CacheHooks


class TestCache(HookConformance):
    @pytest.fixture(autouse=True)
    def _own_folder(self, folder: object) -> None:
        """Keep nothing in the folder of the person who runs the tests."""

    def make(self) -> CacheHooks:
        return CacheHooks()
