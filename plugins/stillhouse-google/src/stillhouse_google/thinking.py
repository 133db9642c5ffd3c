"""How a model thinks: what `reasoning_effort` is to each family of models."""

from __future__ import annotations

import re

from stillhouse import UnsupportedError
from stillhouse.http import effort_of

__all__ = ["major_version", "thinking_of"]

_FAMILY = re.compile(r"gemini-(\d{1,3})(?:\.(\d{1,3}))?(?=-|@|$)")

# https://ai.google.dev/gemini-api/docs/openai#thinking has the budgets; the last is a model's largest.
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
_FLASH_BUDGETS = {"none": 0, **_BUDGETS, "max": 24576}
_PRO_BUDGETS = {**_BUDGETS, "max": 32768}

_PRO_LEVELS = {"low": "LOW", "medium": "MEDIUM", "high": "HIGH"}
_LEVELS = {"minimal": "MINIMAL", **_PRO_LEVELS}


def major_version(model: str) -> int | None:
    """Return which Gemini a model is, such as 3; `None` where its name does not say."""
    found = _FAMILY.search(model)
    return None if found is None else int(found[1])


def thinking_of(effort: str, model: str, llm: str) -> dict[str, int | str]:
    """Return the `thinkingConfig` for a `reasoning_effort`: a budget of tokens, or from Gemini 3 on a level.

    Raises:
        UnsupportedError: the model has no such level, or its name does not say how it thinks.
    """
    found = _FAMILY.search(model)
    version = (int(found[1]), int(found[2] or 0)) if found else (0, 0)
    is_pro = "-pro" in model
    who = f"{llm} with {model}"
    if version >= (3, 0):
        return {"thinkingLevel": effort_of(effort, _PRO_LEVELS if is_pro else _LEVELS, who)}
    if version >= (2, 5):
        return {"thinkingBudget": effort_of(effort, _PRO_BUDGETS if is_pro else _FLASH_BUDGETS, who)}
    raise UnsupportedError(
        f"{who} has no reasoning_effort: only names of Gemini 2.5 and later are recognised",
        hint='use the API\'s format, such as thinking={"thinkingBudget": 1024}',
        stops_run=True,
    )
