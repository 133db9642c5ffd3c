"""The models that a provider offers, as it lists them: what is kept of a list, and what is near a name."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast, get_type_hints

from stillhouse.errors import UnsupportedError
from stillhouse.outputs import count_of
from stillhouse.typing import ModelInfo

__all__ = ["MAX_MODELS", "add_models", "cannot_list", "nearest", "problem_in", "read_model"]

MAX_MODELS = 10_000
"""How many models are kept of a list; the largest in use have hundreds."""

MAX_NAME_CHARS = 256

_MAX_COMPARED = 2_000
"""Of how many names the near ones are found: comparing costs the product of two lengths."""

_FIELDS = frozenset(get_type_hints(ModelInfo))
_DATE = re.compile(
    r"[12]\d{3}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII | re.IGNORECASE
)
# Seconds from 2001 to 2100: what else a server says, such as 0, is no time at which a model was made.
_EPOCH = (1e9, 4.1e9)


def cannot_list(backend: str) -> UnsupportedError:
    """Return the error of a backend that lists no models."""
    return UnsupportedError(
        f"{backend} lists no models",
        hint="look the name of a model up in the documentation of the provider or the engine",
    )


def add_models(
    found: dict[str, ModelInfo], entries: Iterable[Any], mask: Callable[[str], str] | None = None
) -> None:
    """Add what can be used of a list to what was found before; the first of a name counts.

    Args:
        found: the models so far, by name; at most `MAX_MODELS` are kept.
        entries: as a backend reads them from an answer; of any type.
        mask: masks secrets in a name.
    """
    for entry in entries:
        model = read_model(entry)
        if model is not None:
            if mask is not None:
                model["name"] = mask(model["name"])
            found.setdefault(model["name"], model)
            if len(found) >= MAX_MODELS:
                return


def read_model(entry: Any) -> ModelInfo | None:
    """Return what can be used of an entry; `None` if it has no name that can be printed."""
    if not isinstance(entry, Mapping):
        return None
    name = entry.get("name")
    name = name.strip() if isinstance(name, str) and len(name) <= 2 * MAX_NAME_CHARS else ""
    if not name or not name.isprintable() or len(name) > MAX_NAME_CHARS:
        return None
    facts = {
        "context_length": count_of(entry.get("context_length")) or None,
        "max_new_tokens": count_of(entry.get("max_new_tokens")) or None,
        "created": _date(entry.get("created")),
        "input_price": _price(entry.get("input_price")),
        "output_price": _price(entry.get("output_price")),
    }
    known = {key: value for key, value in facts.items() if value is not None}
    return cast("ModelInfo", {"name": name, **known})


def _date(value: Any) -> str | None:
    """Return a time as ISO 8601 has it: a text that is one, or seconds since 1970."""
    try:
        if isinstance(value, str):
            if _DATE.fullmatch(value):
                datetime.fromisoformat(value)
                return value
            value = count_of(value)
        if isinstance(value, (int, float)) and _EPOCH[0] <= value < _EPOCH[1]:
            return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        pass
    return None


def _price(value: Any) -> float | None:
    """Return a price; one that was computed, such as 1e6 × 0.0000028, without the error of computing it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        price = float(f"{float(value):.10g}")
    except OverflowError:
        return None
    return price if math.isfinite(price) and price >= 0 else None


def problem_in(models: Any) -> str:
    """Return what is wrong with a list of models, or an empty string."""
    if not isinstance(models, list):
        return f"it is a {type(models).__name__}, not a list"
    seen: set[str] = set()
    for entry in models:
        shown = repr(entry)[:200]
        model = read_model(entry)
        if model is None:
            return f"the entry {shown} has no name that can be printed"
        for key in entry:
            if key not in _FIELDS:
                return f"the entry {shown} has the key {str(key)[:50]!r}"
            if key not in model or model[key] != entry[key]:  # type: ignore[literal-required]
                return f"the entry {shown} has the {key} {str(entry[key])[:50]!r}"
        if model["name"] in seen:
            return f"the name {model['name']!r} is there twice"
        seen.add(model["name"])
    return ""


def nearest(name: str, names: Collection[str], count: int = 3) -> list[str]:
    """Return the names nearest to one, the nearest first; none if it is one of them itself.

    Upper and lower case are one, and so is a name with or without its maker before it, as in `openai/gpt-5`.
    """
    if name in names:
        return []
    wanted = name[:MAX_NAME_CHARS].lower()
    spellings: dict[str, list[str]] = {}
    for known in list(names)[:_MAX_COMPARED]:
        lower = known.lower()
        for spelling in {lower, lower.rpartition("/")[2]}:
            spellings.setdefault(spelling, []).append(known)
    found: dict[str, None] = {}
    for form in dict.fromkeys((wanted, wanted.rpartition("/")[2])):
        for spelling in difflib.get_close_matches(form, spellings, n=count, cutoff=0.6):
            found.update(dict.fromkeys(spellings[spelling]))
    return list(found)[:count]
