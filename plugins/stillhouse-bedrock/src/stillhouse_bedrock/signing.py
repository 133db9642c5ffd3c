"""Signature Version 4 of AWS, for one service and region; see
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html."""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from stillhouse_bedrock.credentials import Credentials

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["SERVICE", "signed_headers"]

SERVICE = "bedrock"
"""The service that is signed for: the same at the host that runs models and at that which lists them."""

_ALGORITHM = "AWS4-HMAC-SHA256"


def signed_headers(
    credentials: Credentials,
    region: str,
    method: str,
    url: URL,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime | None = None,
) -> dict[str, str]:
    """Return the headers that sign a request.

    Signed are the host, the type of the body, and the headers of AWS; a proxy may change any other.

    Args:
        credentials: whose signature it is.
        region: of the host.
        method: the method.
        url: the address, exactly as it is sent.
        headers: those that are sent besides; only lower-case names are looked at.
        body: exactly what is sent.
        now: the time; `None` reads the clock.
    """
    moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    added = {"x-amz-date": moment}
    if credentials.session_token:
        added["x-amz-security-token"] = credentials.session_token
    signed = {"host": headers.get("host") or url.host_port_subcomponent or ""}
    for name, value in {**headers, **added}.items():
        name = name.lower()
        if name == "content-type" or name.startswith("x-amz-"):
            signed[name] = " ".join(value.split())
    names = sorted(signed)
    listed = ";".join(names)
    canonical = "\n".join(
        (
            method,
            _canonical_path(url.raw_path),
            _canonical_query(url.raw_query_string),
            *(f"{name}:{signed[name]}" for name in names),
            "",
            listed,
            hashlib.sha256(body).hexdigest(),
        )
    )
    scope = f"{moment[:8]}/{region}/{SERVICE}/aws4_request"
    text = "\n".join((_ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = _key(credentials.secret_access_key, moment[:8], region)
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    added["authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key_id}/{scope}, SignedHeaders={listed}, "
        f"Signature={signature}"
    )
    return added


@functools.lru_cache(maxsize=8)
def _key(secret: str, date: str, region: str) -> bytes:
    """The key of a day."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, SERVICE, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


@functools.lru_cache(maxsize=64)
def _canonical_path(path: str) -> str:
    """The path as it is sent, encoded once more: AWS wants it so for every service but S3."""
    parts = [part for part in path.split("/") if part and part != "."]
    end = "/" if parts and path.endswith("/") else ""
    return quote(f"/{'/'.join(parts)}{end}", safe="/~")


def _canonical_query(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&")) if query else ()
    return "&".join(f"{name}={value}" for name, value in sorted((name, value) for name, _, value in pairs))
