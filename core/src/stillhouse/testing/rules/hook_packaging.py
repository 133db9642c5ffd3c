"""`HookPackagingRules`: the distribution of hooks is found, declares what it needs, and is light."""

from __future__ import annotations

import importlib_metadata

from stillhouse.registry.rules import NAME_PATTERN
from stillhouse.testing.hook_kit import HookKit
from stillhouse.testing.imports import check_quick, check_range, heavy_imports, module_of
from stillhouse.testing.rule import expect, rule

__all__ = ["HookPackagingRules"]


class HookPackagingRules(HookKit):
    """An installed plugin of hooks is in the list, and costs little although every run imports it."""

    @rule(since="0.2")
    def test_g90_an_entry_point_leads_to_the_plugin(self) -> None:
        """An installed distribution declares an entry point in `stillhouse.hooks` for the module or object.

        Why: it is how the hooks are found.

        Fix: add `NAME = "module"` or `NAME = "module:object"` under
        `[project.entry-points."stillhouse.hooks"]` in pyproject.toml, and install the distribution again.
        """
        self.candidate()

    @rule(since="0.2")
    def test_g91_the_name_is_a_name(self) -> None:
        """The entry point's name consists of lowercase letters, digits and hyphens.

        Why: it is typed on command lines and written in the config file (E101).

        Fix: rename the entry point.
        """
        name = self.found().name
        expect(NAME_PATTERN.fullmatch(name), f"the name is {name!r}")

    @rule(since="0.2")
    def test_g92_the_core_is_required_in_a_range(self) -> None:
        """The distribution requires `stillhouse` with a lower and an upper bound, between which the
        installed version is.

        Why: with a core that it was not written for, it is refused with a reason (E105) instead of
        failing somewhere.

        Fix: write `dependencies = ["stillhouse>=0.1,<0.2"]`.
        """
        check_range(self.found(), importlib_metadata.version("stillhouse"))

    @rule(since="0.2")
    def test_g93_it_has_a_summary(self) -> None:
        """The distribution has a summary.

        Why: `stillhouse list` prints it.

        Fix: set `description` in pyproject.toml.
        """
        candidate = self.found()
        expect(candidate.summary.strip(), f"{candidate.package} has no summary")

    @rule(since="0.2")
    def test_g94_it_is_imported_quickly(self) -> None:
        """Importing it takes less than half a second. Breaking this rule is a warning.

        Why: every run imports every installed plugin of hooks, whatever it generates with (W208).

        Fix: import heavy libraries in the hook that needs them.
        """
        check_quick(module_of(self.found()))

    @rule(since="0.2")
    def test_g95_nothing_heavy_is_imported_before_a_hook_needs_it(self) -> None:
        """Importing it imports no engine, no vendor's SDK and no HTTP client.

        Why: a run that has nothing to do with the plugin pays for it, and fails where it is broken.

        Fix: import them in the hook that needs them, and for types alone under `if TYPE_CHECKING:`.
        """
        module = module_of(self.found())
        heavy = heavy_imports(module)
        expect(not heavy, f"importing {module} imports {', '.join(heavy)}")
