"""`CacheSettings`: what the table `[hooks.cache]` of the user's config file may hold."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, field_validator

from stillhouse_cache.configuration import DEFAULT_SIZE, parse_size

__all__ = ["CacheSettings"]


class CacheSettings(BaseModel):
    """The settings of the cache. Environment variables override them."""

    path: Path | None = Field(
        default=None, description="The folder of the cache; null means the user's cache folder."
    )
    size: int = Field(
        default=DEFAULT_SIZE,
        description='Maximum size on disk: bytes, or a text such as "500MB".',
    )

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        path = value.expanduser()
        if not path.is_absolute():
            raise ValueError("the path must be absolute, or begin with ~")
        return path

    @field_validator("size", mode="before")
    @classmethod
    def _in_bytes(cls, value: object) -> object:
        return parse_size(str(value))  # what is neither a number nor a text is no size either
