"""What people reported of engines on their machines, replayed on this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from local_reports import LocalEngineReports

from stillhouse import AsyncLLM
from stillhouse_mlx import MlxLLM


class TestReports(LocalEngineReports):
    def make(self, model: Path, **fields: Any) -> AsyncLLM:
        return MlxLLM(model=str(model), **{"device": "cpu", **fields})
