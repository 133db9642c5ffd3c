"""Hooks whose import takes long."""

import time

from good_hooks import Good, instances

_ends = time.process_time() + 0.7
while time.process_time() < _ends:
    pass


class Slow(Good):
    """Takes long to import."""


__getattr__ = instances(globals())
