"""Trying a guide on the engine.

The engine compiles a grammar with LLGuidance, and *drops it without a word* when it cannot: the answer is
then free text. So there are three lines of defence. A JSON schema may use the keywords alone that are known
to be enforced; every guide is tried on the loaded engine before it is used (`probe_of`); and every answer is
checked.
"""

from __future__ import annotations

from stillhouse.local import GUIDE_HEAD, Guide

__all__ = ["SENTINEL", "probe_of"]

SENTINEL = "QZQZ"
"""What a probe must answer with, and no model would by itself."""


def probe_of(guide: Guide) -> str:
    """A grammar whose answer begins with `SENTINEL`, unless the engine drops it."""
    return f'{GUIDE_HEAD}start: "{SENTINEL}" answer\nanswer: {guide.body}'
