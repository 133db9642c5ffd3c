"""The transport that API backends share; it needs the extra `stillhouse[http]`."""

from __future__ import annotations

from stillhouse.http.failures import Failure, failure_of
from stillhouse.http.llm import HTTPLLM

__all__ = ["HTTPLLM", "Failure", "failure_of"]
