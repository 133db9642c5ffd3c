"""All rules for plugins of hooks, and for the readers, writers and executors that these open or make."""

from __future__ import annotations

from stillhouse.testing.rules.executors import ExecutorRules
from stillhouse.testing.rules.hook_packaging import HookPackagingRules
from stillhouse.testing.rules.hooks import HookRules
from stillhouse.testing.rules.readers import ReaderRules
from stillhouse.testing.rules.writers import WriterRules

__all__ = ["ExecutorConformance", "HookConformance", "ReaderConformance", "WriterConformance"]


class HookConformance(HookPackagingRules, HookRules):
    """The rules on plugins of hooks, as tests.

    Subclass it in a test module, in a class whose name begins with `Test`, give it `make()`, and run
    pytest.
    """


class ReaderConformance(ReaderRules):
    """The rules on what `open_reader` returns, as tests; those on the plugin are in `HookConformance`.

    Subclass it in a test module, in a class whose name begins with `Test`; give it `make()` and
    `make_source(folder, rows)`, and `make_bad_row(folder)` if a row of the format can be broken; and run
    pytest.
    """


class WriterConformance(WriterRules):
    """The rules on what `open_writer` and `output_path` return, as tests; those on the plugin are in
    `HookConformance`.

    Subclass it in a test module, in a class whose name begins with `Test`; give it `make()`,
    `make_target(folder)` and `read(target)`; and run pytest.
    """


class ExecutorConformance(ExecutorRules):
    """The rules on what `make_executor` returns, as tests; those on the plugin are in `HookConformance`.

    Subclass it in a test module, in a class whose name begins with `Test`; give it `make()` and `executor`,
    the name of the executor, and `address` if it needs one; and run pytest. The workers ask the kit by a
    port of this machine, and import `stillhouse.testing`.
    """
