"""How calls are made: lifecycle, the thread of an event loop, the window, one call."""
