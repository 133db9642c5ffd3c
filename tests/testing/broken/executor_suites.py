"""What the authors of those executors would write."""

from __future__ import annotations

from typing import Any

from broken_executors import BREAKS, plugin
from good_executors import Copy

from stillhouse.testing import ExecutorConformance


class Suite(ExecutorConformance):
    executor = "copy"
    seconds = 4


def make(executor: type[Any]) -> Any:
    return lambda self: plugin(executor)


for _class in (Copy, *BREAKS):
    globals()[f"Test{_class.__name__}"] = type(f"Test{_class.__name__}", (Suite,), {"make": make(_class)})
