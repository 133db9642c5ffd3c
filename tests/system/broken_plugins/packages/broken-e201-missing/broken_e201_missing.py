"""Needs a library that only an extra of the package brings."""

import a_library_that_nobody_has.client as client

BrokenLLM = client
