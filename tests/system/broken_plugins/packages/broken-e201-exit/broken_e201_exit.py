"""Ends the process, as a script does that is taken for a module."""

import sys

sys.exit("this is a script")
