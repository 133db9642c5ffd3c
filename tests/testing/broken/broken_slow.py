"""A backend whose import takes long."""

import time

from good_backends import Good

_ends = time.process_time() + 0.7
while time.process_time() < _ends:
    pass


class Slow(Good):
    """Takes long to import."""
