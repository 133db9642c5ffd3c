"""`PackagingRules`: the distribution is found, declares what it needs, and is light."""

from __future__ import annotations

import inspect
import operator
import re
import sys

import pytest

from stillhouse.async_llm import AsyncLLM
from stillhouse.llm import LLM
from stillhouse.registry.candidates import Candidate
from stillhouse.registry.validation import validate_llm
from stillhouse.testing.base import Conformance
from stillhouse.testing.imports import check_quick, check_range, heavy_imports, module_of
from stillhouse.testing.rule import Broken, expect, rule

__all__ = ["PackagingRules"]


class PackagingRules(Conformance):
    """An installed backend is in the list, and costs something only when it is used."""

    @rule(after="C70")
    def test_c90_the_registry_finds_nothing_wrong(self) -> None:
        """The class passes every check with which the registry loads it.

        Why: otherwise `stillhouse check` reports it, and nobody can use it by its name.

        Fix: read the sentence after `seen`; `stillhouse check NAME` gives the whole report.
        """
        trouble = validate_llm(self.cls)
        expect(
            trouble is None,
            f"{trouble and trouble.code}: {trouble and trouble.cause}; {trouble and trouble.hint}",
        )

    @rule
    def test_c91_an_entry_point_leads_to_the_class(self) -> None:
        """An installed distribution declares an entry point in `stillhouse.llms` for the class.

        Why: it is how the backend is found.

        Fix: add `NAME = "module:Class"` under `[project.entry-points."stillhouse.llms"]` in
        pyproject.toml, and install the distribution again.
        """
        self._candidate()

    @rule
    def test_c92_the_name_is_a_name(self) -> None:
        """The entry point's name consists of lowercase letters, digits and hyphens.

        Why: it is typed on command lines and written in files (E101).

        Fix: rename the entry point.
        """
        name = self._found().name
        expect(re.fullmatch(r"[a-z0-9][a-z0-9-]*", name), f"the name is {name!r}")

    @rule
    def test_c93_the_core_is_required_in_a_range(self) -> None:
        """The distribution requires `stillhouse` with a lower and an upper bound, between which the
        installed version is.

        Why: with a core that it was not written for, it is refused with a reason (E105) instead of
        failing somewhere.

        Fix: write `dependencies = ["stillhouse>=0.1,<0.2"]`.
        """
        check_range(self._found(), self.registry.core_version)

    @rule
    def test_c94_it_describes_itself(self) -> None:
        """The distribution has a summary; the class and every field of its own have a description.

        Why: `stillhouse list` and `stillhouse show` print them.

        Fix: set `description` in pyproject.toml, write a docstring for the class, and
        `Field(description=…)` for each field.
        """
        candidate, cls = self._found(), self.cls
        expect(candidate.summary.strip(), f"{candidate.package} has no summary")
        expect("__doc__" in vars(cls) and inspect.getdoc(cls), f"{cls.__name__} has no docstring")
        known = {**LLM.model_fields, **AsyncLLM.model_fields}
        missing = [
            name for name, field in cls.model_fields.items() if name not in known and not field.description
        ]
        expect(not missing, f"fields without a description: {', '.join(missing)}")

    @rule
    def test_c95_it_is_imported_quickly(self) -> None:
        """Importing it takes less than half a second. Breaking this rule is a warning.

        Why: listing, checking and configuring it pay for the import (W208).

        Fix: import heavy libraries in `load()`, or in the function that needs them.
        """
        check_quick(module_of(self._found()))

    @rule
    def test_c96_nothing_heavy_is_imported_before_loading(self) -> None:
        """Importing it imports no engine, no vendor's SDK and no HTTP client.

        Why: they belong to `load()`; until then nobody needs them, and they may be broken or missing.

        Fix: import them in `load()` or in the function that needs them, and for types alone under
        `if TYPE_CHECKING:`.
        """
        module = module_of(self._found())
        heavy = heavy_imports(module)
        expect(not heavy, f"importing {module} imports {', '.join(heavy)}")

    def _found(self) -> Candidate:
        """Return the candidate of the class; without one, one rule is broken and the others are skipped."""
        try:
            return self._candidate()
        except Broken:
            pytest.skip("no entry point leads to the class")

    def _candidate(self) -> Candidate:
        cls = self.cls
        for info in self.registry.available_llms():
            module, _, attribute = info.candidate.value.partition(":")
            if (
                not info.candidate.distribution
                or module.partition(".")[0] != cls.__module__.partition(".")[0]
            ):
                continue
            try:
                found = operator.attrgetter(attribute.partition("[")[0].strip())(sys.modules[module.strip()])
            except (AttributeError, KeyError, ValueError):
                continue
            if found is cls:
                return info.candidate
        raise Broken(
            f"none of the entry points in stillhouse.llms leads to {cls.__module__}:{cls.__qualname__}"
        )
