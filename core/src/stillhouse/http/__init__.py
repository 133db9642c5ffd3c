"""The transport that API backends share; it needs the extra `stillhouse[http]`."""

from __future__ import annotations

from stillhouse.http.asking import ask_until_done
from stillhouse.http.failures import Failure, failure_of
from stillhouse.http.forms import RequestForm, StructuredHTTPLLM
from stillhouse.http.instructed import ask_instructed
from stillhouse.http.llm import HTTPLLM
from stillhouse.http.quotas import QuotaHeaders

__all__ = [
    "HTTPLLM",
    "Failure",
    "QuotaHeaders",
    "RequestForm",
    "StructuredHTTPLLM",
    "ask_instructed",
    "ask_until_done",
    "failure_of",
]
