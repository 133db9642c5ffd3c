"""`Kit`: the base of every class of the kit: which rules are broken, and that none is left out in silence."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, ClassVar

from stillhouse.testing.globals import changes, snapshot
from stillhouse.testing.rule import rule_of

__all__ = ["Kit"]

_KIT = "stillhouse.testing."

_FOR_AUTHORS = {
    "address", "answers_are_scripted", "arguments", "credential", "example", "executor", "input_of", "make",
    "make_at", "make_bad_row", "make_empty", "make_failing", "make_source", "make_target", "pytestmark",
    "read", "refusal", "requests_per_input", "respond", "respond_streamed", "rows", "seconds", "settings",
    "setup_class", "streamed_error", "teardown_class", "texts",
}  # fmt: skip
"""What a subclass may define; every other name belongs to the kit."""

_OTHERS = {"abc", "builtins", "pydantic", "stillhouse", "typing"}

_STATE = {
    "_broken", "_looked_at", "_mistakes", "_registry", "_server", "_shared", "changed",
}  # fmt: skip


class Kit:
    """The base of the kit's classes."""

    changed: ClassVar[set[str]] = set()
    """The global state of the process that changed while the plugin was used, in any test."""

    _broken: ClassVar[set[str]] = set()
    """The ids of the rules that were found broken; those that need one of them are skipped."""

    _mistakes: ClassVar[dict[str, str]] = {}
    """For each exception that broke a rule, the id of that rule; another rule that meets it is skipped."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Reject a class that leaves a rule out: an override must be marked xfail, with a reason."""
        super().__init_subclass__(**kwargs)
        kit = [base for base in cls.__mro__ if base.__module__.startswith(_KIT)]
        for name in sorted({name for base in kit for name in vars(base)} - _FOR_AUTHORS):
            original = next(vars(base)[name] for base in kit if name in vars(base))
            found = inspect.getattr_static(cls, name)
            rule = rule_of(original)
            if found is original or name.startswith("__") or name in _STATE:
                continue
            if rule is None:
                raise TypeError(f"{cls.__name__}.{name}: the kit has a member of this name; rename yours")
            marks = [mark for mark in getattr(found, "pytestmark", ()) if mark.name == "xfail"]
            if not any(mark.kwargs.get("reason") for mark in marks):
                raise TypeError(
                    f"{cls.__name__}.{name} overrides the test of {rule.id} ({rule.promise}). A rule is left "
                    f"out only openly: decorate the override with @pytest.mark.xfail(reason=…), and call "
                    f"super().{name}() in it"
                )
            found.conformance_rule = rule

    @classmethod
    def setup_class(cls) -> None:
        """Prepare the class; pytest calls it before its first test."""
        cls.changed, cls._broken, cls._mistakes = set(), set(), {}

    def _made_of(self) -> tuple[type, ...]:
        """Return the classes of what is tested, as far as it was made."""
        return ()

    @property
    def _packages(self) -> set[str]:
        """The names of the author's packages and modules: those of the plugin, and of the test."""
        classes = [*type(self).__mro__, *self._made_of()]
        return {cls.__module__.partition(".")[0] for cls in classes} - _OTHERS

    @contextlib.contextmanager
    def _observed(self) -> Iterator[None]:
        before = snapshot()
        try:
            yield
        finally:
            self.changed.update(changes(before))
