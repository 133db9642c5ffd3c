"""What people reported of engines on their machines, replayed on this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from local_reports import LocalEngineReports

from stillhouse import AsyncLLM
from stillhouse_transformers import TransformersLLM


class TestReports(LocalEngineReports):
    def make(self, model: Path, **fields: Any) -> AsyncLLM:
        return TransformersLLM(model=str(model), **{"device": "cpu", **fields})
