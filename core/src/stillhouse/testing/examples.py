"""What the kit sends: an image, a tool, and a form for each capability that has one."""

from __future__ import annotations

from typing import Any

__all__ = ["FORMS", "IMAGE", "OTHER_FORMS", "TOOL"]

# A red dot of one pixel.
IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8Dw"
    "HwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "length_of",
        "description": "The length of a river in km.",
        "parameters": {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]},
    },
}
FORMS: dict[str, dict[str, Any]] = {
    "json_schema": {
        "format": "json",
        "schema": {
            "type": "object",
            "properties": {
                "river": {"type": "string"},
                "country": {"type": "string", "enum": ["Peru", "Chile"]},
            },
            "required": ["river", "country"],
            "additionalProperties": False,
        },
    },
    "regex": {"format": "regex", "schema": "[0-9]{3}-[a-c]{2}"},
    "choice": {"format": "choice", "schema": ["yes", "no"]},
}
OTHER_FORMS: dict[str, dict[str, Any]] = {
    "json_schema": {
        "format": "json",
        "schema": {
            "type": "object",
            "properties": {"lake": {"type": "string"}},
            "required": ["lake"],
            "additionalProperties": False,
        },
    },
    "regex": {"format": "regex", "schema": "[x-z]{4}"},
    "choice": {"format": "choice", "schema": ["x", "y"]},
}
"""Another form of each kind: the LLM's own while an input asks for the first."""
