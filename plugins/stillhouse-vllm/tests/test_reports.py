"""What people reported of engines on their machines, replayed on this one."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import local_reports
import pytest
from local_reports import LocalEngineReports
from small_models import tiny_model

from stillhouse import AsyncLLM
from stillhouse_vllm import VLLM

from .conftest import HEADS, SMALL


class TestReports(LocalEngineReports):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def engines(cls, fast_start: None) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(local_reports, "tiny_model", functools.partial(tiny_model, **HEADS))
            yield

    def make(self, model: Path, **fields: Any) -> AsyncLLM:
        return VLLM(model=str(model), **{**SMALL, **fields})
