"""Guides: what makes the engine answer in a form, and what holds the answer to it.

The engine compiles a grammar with LLGuidance, and *drops it without a word* when it cannot: the
answer is then free text. So there are three lines of defence. A JSON schema may use the keywords
alone that are known to be enforced; every guide is tried on the loaded engine before it is used
(`probe_of`); and every answer is checked (`Guide.check`).
"""

from __future__ import annotations

from typing import Any

from stillhouse import local
from stillhouse.local import Guide

__all__ = ["SENTINEL", "Guide", "guide_for", "probe_of"]

SENTINEL = "QZQZ"
"""What a probe must answer with, and no model would by itself."""


def guide_for(structured_output: Any) -> Guide:
    """The guide for a structured output, in any of its shapes; equal ones give the same guide.

    Raises:
        ConfigurationError: it has another shape, or the schema is not valid.
        UnsupportedError: the schema has a keyword that the engine does not enforce.
    """
    return local.guide_for(structured_output, "LlamaCppLLM")


def probe_of(guide: Guide) -> str:
    """A grammar whose answer begins with `SENTINEL`, unless the engine drops it."""
    return f'{local.GUIDE_HEAD}start: "{SENTINEL}" answer\nanswer: {guide.body}'
