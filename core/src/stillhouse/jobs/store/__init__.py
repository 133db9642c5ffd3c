"""The state of a run: one database file, its lock, and the files next to it."""
