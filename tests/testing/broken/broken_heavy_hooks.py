"""Hooks that import an engine at once; beside it, one of that name is put."""

import vllm  # noqa: F401
from good_hooks import Good, instances


class Heavy(Good):
    """Imports an engine that no hook needs yet."""


__getattr__ = instances(globals())
