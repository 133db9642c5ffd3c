"""`HTTPLLM` and what API backends share; it needs the extra `stillhouse[http]`."""

from __future__ import annotations

from stillhouse.http.asking import ask_until_done
from stillhouse.http.instructed import ask_instructed
from stillhouse.http.llm import HTTPLLM
from stillhouse.http.request import Request, RequestForm
from stillhouse.http.structured import StructuredHTTPLLM
from stillhouse.http.transport.answers import failure_in, status_of
from stillhouse.http.transport.failures import failure_of, message_of
from stillhouse.http.transport.files import BLOCK, Upload, form_upload
from stillhouse.http.transport.quotas import (
    X_RATELIMIT,
    QuotaHeaders,
    QuotaLeft,
    left_of,
    quota_left,
    seconds_until,
)
from stillhouse.http.transport.reading import ServerEvent, Wire
from stillhouse.offline.failures import Failure, UnclearError

__all__ = [
    "BLOCK",
    "HTTPLLM",
    "X_RATELIMIT",
    "Failure",
    "QuotaHeaders",
    "QuotaLeft",
    "Request",
    "RequestForm",
    "ServerEvent",
    "StructuredHTTPLLM",
    "UnclearError",
    "Upload",
    "Wire",
    "ask_instructed",
    "ask_until_done",
    "failure_in",
    "failure_of",
    "form_upload",
    "left_of",
    "message_of",
    "quota_left",
    "seconds_until",
    "status_of",
]
