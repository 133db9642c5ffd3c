"""Importing the object of an entry point, with a `Problem` where that fails."""

from __future__ import annotations

import difflib
import importlib
import time
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple, overload

from stillhouse._execution.exits import is_from_signal
from stillhouse._wording import install_command
from stillhouse.registry.candidates import Candidate
from stillhouse.registry.problems import Problem, describe, missing_module_hint, source_of

__all__ = ["Loaded", "load_hook", "load_llm", "with_user_hint"]

_SLOW_IMPORT_SECONDS = 0.5


class Loaded(NamedTuple):
    """The outcome of loading a candidate: the object or an error, and possibly a warning."""

    value: Any
    error: Problem | None
    warning: Problem | None


def load_llm(candidate: Candidate) -> Loaded:
    """Import a class and validate it against the contract."""
    # Before the clock starts: the time of the core's own imports is not the plugin's.
    from stillhouse.registry.validation import validate_llm

    loaded = _load(candidate, "load()")
    if loaded.error is None:
        return loaded._replace(error=with_user_hint(validate_llm(loaded.value), candidate))
    return loaded


def load_hook(candidate: Candidate) -> Loaded:
    """Import a hook plugin. `Hooks.register` validates it."""
    return _load(candidate, "the hook that needs them")


@overload
def with_user_hint(problem: Problem, candidate: Candidate) -> Problem: ...
@overload
def with_user_hint(problem: None, candidate: Candidate) -> None: ...
def with_user_hint(problem: Problem | None, candidate: Candidate) -> Problem | None:
    """Add to a hint for the plugin's author what a user can do who only installed it."""
    if problem is None or not candidate.distribution:
        return problem
    return replace(problem, hint=f"{problem.hint}, if it is yours; else {_upgrade(candidate)}")


def _load(candidate: Candidate, place_for_imports: str) -> Loaded:
    module_name, _, attribute = (part.strip() for part in candidate.value.partition(":"))
    attribute = attribute.partition("[")[0].strip()
    started = time.perf_counter()
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:
        if is_from_signal(error):
            raise
        return Loaded(None, _import_problem(candidate, error), None)
    seconds = time.perf_counter() - started
    warning = None
    if seconds > _SLOW_IMPORT_SECONDS and candidate.distribution != "stillhouse":
        cause = f"importing {module_name} took {seconds * 1000:.0f} ms"
        hint = f"import heavy libraries in {place_for_imports}"
        warning = with_user_hint(Problem("W208", cause, hint), candidate)
    value: Any = module
    for part in attribute.split(".") if attribute else ():
        try:
            value = getattr(value, part)
        except AttributeError:
            return Loaded(None, _missing_attribute(candidate, module, attribute), warning)
        except BaseException as error:  # a lazy module attribute
            if is_from_signal(error):
                raise
            return Loaded(None, _import_problem(candidate, error), warning)
    return Loaded(value, None, warning)


def _missing_attribute(candidate: Candidate, module: ModuleType, attribute: str) -> Problem:
    cause = f"{module.__name__} has no {attribute}{source_of(module)}"
    near = difflib.get_close_matches(attribute, dir(module), n=1)
    if near:
        cause += f"; it has {near[0]}"
    hint = f"correct the entry point, or define {attribute} in {module.__name__}"
    return with_user_hint(Problem("E202", cause, hint), candidate)


def _import_problem(candidate: Candidate, error: BaseException) -> Problem:
    if isinstance(error, ImportError) and error.name and _is_missing(error):
        import importlib_metadata

        core_requires = tuple(importlib_metadata.requires("stillhouse") or ())
        hint = missing_module_hint(candidate, error.name, core_requires)
    elif candidate.distribution:
        hint = _upgrade(candidate)
    else:
        hint = f"correct {candidate.value.partition(':')[0]}"
    return Problem("E201", describe(error), hint, exception=error)


def _upgrade(candidate: Candidate) -> str:
    return install_command(candidate.distribution, options="--upgrade")


def _is_missing(error: ImportError) -> bool:
    """Check whether a module is missing, or the core lacks a name that the plugin imports."""
    return isinstance(error, ModuleNotFoundError) or (error.name or "").partition(".")[0] == "stillhouse"
