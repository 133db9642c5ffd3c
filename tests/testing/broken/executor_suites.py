"""What the authors of those executors would write."""

from __future__ import annotations

import os
from typing import Any

from broken_executors import BREAKS, plugin
from good_executors import Copy

from stillhouse.testing import ExecutorConformance


class Suite(ExecutorConformance):
    executor = "copy"
    seconds = 4


def make(executor: type[Any]) -> Any:
    return lambda self: plugin(executor)


# `BROKEN_EVERY` takes one in so many of those that break a rule.
for _class in (Copy, *[*BREAKS][:: int(os.environ["BROKEN_EVERY"])]):
    globals()[f"Test{_class.__name__}"] = type(f"Test{_class.__name__}", (Suite,), {"make": make(_class)})
