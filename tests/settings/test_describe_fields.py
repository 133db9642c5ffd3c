"""`describe` lists the fields that a backend can use."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from stillhouse import Capability, EchoLLM
from stillhouse._settings.describe import describe
from stillhouse.offline import OfflineBatchMixin


class BatchEchoLLM(EchoLLM):
    capabilities: ClassVar[frozenset[Capability]] = EchoLLM.capabilities | {"offline_batch"}


@pytest.mark.parametrize(("cls", "has_them"), [(EchoLLM, False), (BatchEchoLLM, True)])
def test_fields_of_offline_batches_are_listed_where_there_are_batches(cls: Any, has_them: bool) -> None:
    names = [field["name"] for field in describe(cls)["fields"]]
    batch_fields = set(OfflineBatchMixin.model_fields)
    assert "use_offline_batch_generation" in batch_fields
    assert (batch_fields <= set(names)) is has_them
    assert batch_fields.isdisjoint(names) is not has_them
    assert names[-1] in ("generation_kwargs", "max_concurrency", *batch_fields)
