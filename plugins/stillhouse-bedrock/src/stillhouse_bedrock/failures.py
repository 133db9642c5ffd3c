"""Reading a `Failure` from a response: what is specific to AWS, whose errors have their name in a header."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from stillhouse.http import Failure, failure_of, message_of

__all__ = ["bedrock_failure", "is_expired"]

_EXPIRED = re.compile(r"ExpiredToken|RequestExpired|security token .{0,40}expired", re.IGNORECASE)
_SKEWED = re.compile(r"Signature expired|Signature not yet current|RequestTimeTooSkewed", re.IGNORECASE)

_SKEW_SECONDS = 240
"""AWS allows for five minutes; the answer took some time to come."""

_CLIENT_STATUSES = (400, 413, 422)

_OF_A_QUOTA = ("LimitExceeded", "ServiceQuotaExceeded", "Throttling", "TooManyRequests")
"""How the names of errors of a quota begin. Their words may be those of a prompt that is too long."""


def _rule(pattern: str, hint: str, **changes: Any) -> tuple[re.Pattern[str], dict[str, Any]]:
    return re.compile(pattern, re.IGNORECASE), {"hint": hint, **changes}


_RULES = (
    _rule(
        "on-demand throughput isn.t supported",
        "set model to the id or the ARN of an inference profile that has the model, such as us.MODEL or "
        "global.MODEL: `stillhouse models bedrock` lists them",
        unknown_model=False,  # it is known, and names near it would not help
    ),
    _rule(
        r"model identifier|UnknownOperation",
        "check the model's id, and that the region has the model",
        stops_run=True,
        unknown_model=True,
    ),
    _rule(
        "guardrail identifier",
        "check guardrail_config, and that the region has the guardrail",
        stops_run=True,
        unknown_model=False,
    ),
    _rule("use case details", "fill out the form on the model's page in the AWS console", stops_run=True),
    _rule(
        "end of its life|marked by provider as legacy", "the model is retired: set another", stops_run=True
    ),
    _rule("allow prompt caching", "the model has no prompt cache: set prompt_caching to False"),
    _rule(
        "have access to the model",
        "request access to the model on its page in the AWS console, for this account and region",
    ),
    _rule("not authorized to perform", "allow the action in the message in the identity's IAM policy"),
    _rule(
        r"operation not allowed|account is not authorized|not available for .{0,40}accounts",
        "AWS does not let this account use the model: ask AWS support",
        kind="authentication",
        stops_run=True,
    ),
    _rule(
        "being verified|needs a subscription|payment instrument|Marketplace subscription",
        "fix what the message names in the AWS account, and run the same command again",
    ),
    _rule(
        "tool result blocks cannot be provided in the same turn",
        "put an assistant message between the tool results and the user message",
    ),
    _rule(
        r"extraneous key \[top_k\]",
        "the model uses another name for top_k: leave it out, and send the model's own parameter with "
        "extra_body",
    ),
    _rule(
        "scoped to a valid region",
        "set region to the region of the address: requests are signed for it",
    ),
    _rule("bearer token has expired", "create a new Bedrock API key, and set AWS_BEARER_TOKEN_BEDROCK to it"),
    _rule(
        "^(UnrecognizedClient|InvalidSignature|IncompleteSignature|MissingAuthentication|InvalidClientToken)",
        "check the AWS credentials: the access key, its secret, and the session token if they are temporary",
    ),
    _rule(
        "^ModelNotReady",
        "the model is being started: wait, or raise retry_timeout",
        kind="server",
        retried=True,
        congestion=False,
    ),
    _rule("^ModelTimeout", "ask for fewer new tokens"),
)


def bedrock_failure(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure that a response is, with what to do about the errors that AWS names."""
    name, message = _said(headers, body)
    text = f"{name} {message}"
    if status == 400 and name.startswith(_OF_A_QUOTA):
        failure = failure_of(429, headers, body)
        failure = replace(failure, message=failure.message.replace("status 429", "status 400", 1))
    else:
        failure = failure_of(status, headers, body)
    if status in (400, 403) and _SKEWED.search(text):
        return _skewed(failure, headers)
    if is_expired(status, headers, body):
        hint = "log in again, or set fresh AWS credentials, and run the same command again"
        return replace(failure, kind="authentication", retried=False, stops_run=True, hint=hint)
    for pattern, changes in _RULES:
        if pattern.search(text):
            return replace(failure, **changes)
    if failure.kind == "rate_limit" and failure.retried:
        hint = f"{failure.hint}; a lower max_new_tokens helps, because AWS reserves that much of the quota"
        return replace(failure, hint=hint)
    if status == 424 and _original_status(body) in _CLIENT_STATUSES:
        return replace(failure, kind="invalid_request", retried=False, congestion=False, unclear=False)
    return failure


def is_expired(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Check for temporary credentials that are no longer valid."""
    return status in (400, 401, 403) and _EXPIRED.search(" ".join(_said(headers, body))) is not None


def _said(headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
    """Return the name of an error, without the namespace and the address around it, and its message."""
    code, message = message_of(body)
    given = next((text for name, text in headers.items() if name.lower() == "x-amzn-errortype"), "") or code
    return given.partition(":")[0].rpartition("#")[2], message


def _skewed(failure: Failure, headers: Mapping[str, str]) -> Failure:
    """Tell by how much this machine's clock is wrong, where the server's answer has its date."""
    date = next((text for name, text in headers.items() if name.lower() == "date"), "")
    off = ""
    try:
        seconds = time.time() - parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        seconds = 0.0
    if abs(seconds) >= _SKEW_SECONDS:
        off = f" is {abs(seconds) / 60:,.0f} minutes {'ahead of' if seconds > 0 else 'behind'} the server's"
    return replace(
        failure,
        kind="authentication",
        message=f"{failure.message} (the clock of this machine{off or ' disagrees with the server'})",
        hint="set the clock of this machine: AWS accepts a signature for only five minutes",
        retried=False,
        stops_run=True,
    )


def _original_status(body: bytes) -> Any:
    """Return the status with which the model itself refused a request that Bedrock passed on to it."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return answer.get("originalStatusCode") if isinstance(answer, dict) else None
