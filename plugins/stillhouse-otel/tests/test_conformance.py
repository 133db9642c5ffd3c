"""The hooks keep every rule of the conformance kit, switched on."""

from collections.abc import Iterator
from typing import ClassVar

import pytest
from otlp_receiver import Receiver

from stillhouse.testing import HookConformance
from stillhouse_otel import OtelHooks


class TestOtel(HookConformance):
    settings: ClassVar = {"ratio": 1.0, "capture_content": True}

    @pytest.fixture(autouse=True)
    def _own_receiver(
        self, receiver: Receiver, made: list[OtelHooks], monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[None]:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        yield
        if type(self)._looked_at is not None:
            made.append(self.plugin)

    def make(self) -> OtelHooks:
        return OtelHooks()
