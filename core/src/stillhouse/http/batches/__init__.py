"""Offline batches over HTTP: the engine, and the base of backends that have them."""

from __future__ import annotations

from stillhouse.http.batches.engine import InputsOf, OfflineBatch
from stillhouse.http.batches.files import BatchLimits, Framing
from stillhouse.http.batches.jobs import Job, JobResult, UndecidedError
from stillhouse.http.batches.llm import BatchHTTPLLM
from stillhouse.http.batches.results import Results

__all__ = [
    "BatchHTTPLLM",
    "BatchLimits",
    "Framing",
    "InputsOf",
    "Job",
    "JobResult",
    "OfflineBatch",
    "Results",
    "UndecidedError",
]
