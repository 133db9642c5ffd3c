"""`HTTPLLM` and what API backends share; it needs the extra `stillhouse[http]`."""

from __future__ import annotations

from stillhouse.http.asking import ask_until_done
from stillhouse.http.generations import (
    chat_logprobs,
    counted,
    finish_reason,
    logprobs_of,
    statistics_of,
    string_of,
    tool_call,
    total_of,
)
from stillhouse.http.instructed import ask_instructed
from stillhouse.http.limited import LimitedLLM
from stillhouse.http.llm import HTTPLLM
from stillhouse.http.messages import (
    InlineImage,
    NamedTool,
    arguments_of,
    choice_of,
    complete_tool,
    effort_of,
    function_of,
    image_of,
    lean_message,
    media_type_of,
    split_system,
    text_of,
    tool_names,
)
from stillhouse.http.pacing import PacingMixin
from stillhouse.http.request import Request, RequestForm
from stillhouse.http.server import ServerLLM
from stillhouse.http.structured import StructuredHTTPLLM
from stillhouse.http.transport.answers import failure_in, status_of
from stillhouse.http.transport.failures import answered, failure_of, message_of
from stillhouse.http.transport.files import BLOCK, Upload, form_upload
from stillhouse.http.transport.quotas import (
    X_RATELIMIT,
    QuotaHeaders,
    QuotaLeft,
    left_of,
    quota_left,
    seconds_until,
)
from stillhouse.http.transport.reading import ServerEvent, StreamReader, Wire
from stillhouse.offline.failures import Failure, UnclearError

__all__ = [
    "BLOCK",
    "HTTPLLM",
    "X_RATELIMIT",
    "Failure",
    "InlineImage",
    "LimitedLLM",
    "NamedTool",
    "PacingMixin",
    "QuotaHeaders",
    "QuotaLeft",
    "Request",
    "RequestForm",
    "ServerEvent",
    "ServerLLM",
    "StreamReader",
    "StructuredHTTPLLM",
    "UnclearError",
    "Upload",
    "Wire",
    "answered",
    "arguments_of",
    "ask_instructed",
    "ask_until_done",
    "chat_logprobs",
    "choice_of",
    "complete_tool",
    "counted",
    "effort_of",
    "failure_in",
    "failure_of",
    "finish_reason",
    "form_upload",
    "function_of",
    "image_of",
    "lean_message",
    "left_of",
    "logprobs_of",
    "media_type_of",
    "message_of",
    "quota_left",
    "seconds_until",
    "split_system",
    "statistics_of",
    "status_of",
    "string_of",
    "text_of",
    "tool_call",
    "tool_names",
    "total_of",
]
