"""`OtelSettings`: what the table `[hooks.otel]` of the user's config file may hold."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator

__all__ = ["OtelSettings"]


class OtelSettings(BaseModel):
    """The settings of the telemetry. OpenTelemetry's environment variables override the endpoint."""

    enabled: bool | None = Field(
        default=None,
        description="Whether to report; null means: if the environment or the program asks for it.",
    )
    endpoint: str | None = Field(
        default=None,
        description="The base address of an OTLP collector; null means OTEL_EXPORTER_OTLP_ENDPOINT, or "
        "http://localhost:4318.",
    )
    ratio: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of the rows that get a span, from 0 to 1; metrics count all.",
    )
    capture_content: bool = Field(
        default=False,
        description="Whether spans hold prompts, answers, messages of errors, and the names of the files.",
    )
    content_length: int = Field(
        default=4096, ge=1, le=100_000, description="Maximum characters of text in one attribute of a span."
    )
    flush_seconds: float = Field(
        default=2.0, ge=0, le=60, description="How long the end of a run waits for the exporter at most."
    )

    @field_validator("endpoint")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        address = urlsplit(value)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("the address must begin with http:// or https:// and name a host")
        return value.rstrip("/")
