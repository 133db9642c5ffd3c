"""Importing what an entry point leads to, and saying what is wrong where that fails."""

from __future__ import annotations

import difflib
import importlib
import time
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple, overload

from stillhouse.registry.candidates import Candidate
from stillhouse.registry.problems import Trouble, describe, missing_module_hint, source_of

__all__ = ["Loaded", "for_users", "load_hook", "load_llm"]

_SLOW_IMPORT_SECONDS = 0.5


class Loaded(NamedTuple):
    """What loading a candidate gave: the object, or an error; and a warning perhaps."""

    value: Any
    error: Trouble | None
    warning: Trouble | None


def load_llm(candidate: Candidate) -> Loaded:
    """Import a class and hold it to the contract."""
    # Before the clock starts: the plugin does not answer for what the core imports.
    from stillhouse.registry.validation import validate_llm

    loaded = _load(candidate, "load()")
    if loaded.error is None:
        return loaded._replace(error=for_users(validate_llm(loaded.value), candidate))
    return loaded


def load_hook(candidate: Candidate) -> Loaded:
    """Import a hook plugin. It is held to the specifications when it is registered."""
    return _load(candidate, "the hook that needs them")


@overload
def for_users(trouble: Trouble, candidate: Candidate) -> Trouble: ...
@overload
def for_users(trouble: None, candidate: Candidate) -> None: ...
def for_users(trouble: Trouble | None, candidate: Candidate) -> Trouble | None:
    """What the author of a plugin is to correct, with what is left to somebody who installed it."""
    if trouble is None or not candidate.distribution:
        return trouble
    return replace(
        trouble, hint=f"{trouble.hint}, if it is yours; else pip install --upgrade {candidate.distribution}"
    )


def _load(candidate: Candidate, place_for_imports: str) -> Loaded:
    module_name, _, attribute = (part.strip() for part in candidate.value.partition(":"))
    attribute = attribute.partition("[")[0].strip()
    started = time.perf_counter()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        return Loaded(None, _import_trouble(candidate, error), None)
    seconds = time.perf_counter() - started
    warning = None
    if seconds > _SLOW_IMPORT_SECONDS and candidate.distribution != "stillhouse":
        cause = f"importing {module_name} took {seconds * 1000:.0f} ms"
        hint = f"import heavy libraries in {place_for_imports}"
        warning = for_users(Trouble("W208", cause, hint), candidate)
    value: Any = module
    for part in attribute.split(".") if attribute else ():
        try:
            value = getattr(value, part)
        except AttributeError:
            return Loaded(None, _absence(candidate, module, attribute), warning)
        except (Exception, SystemExit) as error:  # a lazy module attribute
            return Loaded(None, _import_trouble(candidate, error), warning)
    return Loaded(value, None, warning)


def _absence(candidate: Candidate, module: ModuleType, attribute: str) -> Trouble:
    cause = f"{module.__name__} has no {attribute}{source_of(module)}"
    near = difflib.get_close_matches(attribute, dir(module), n=1)
    if near:
        cause += f"; it has {near[0]}"
    hint = f"correct the entry point, or define {attribute} in {module.__name__}"
    return for_users(Trouble("E202", cause, hint), candidate)


def _import_trouble(candidate: Candidate, error: BaseException) -> Trouble:
    if isinstance(error, ImportError) and error.name and _is_missing(error):
        import importlib_metadata

        core_requires = tuple(importlib_metadata.requires("stillhouse") or ())
        hint = missing_module_hint(candidate, error.name, core_requires)
    elif candidate.distribution:
        hint = f"pip install --upgrade {candidate.distribution}"
    else:
        hint = f"correct {candidate.value.partition(':')[0]}"
    return Trouble("E201", describe(error), hint, exception=error)


def _is_missing(error: ImportError) -> bool:
    """Whether a module is missing, or the core lacks a name that the plugin was written for."""
    return isinstance(error, ModuleNotFoundError) or (error.name or "").partition(".")[0] == "stillhouse"
