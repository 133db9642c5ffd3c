"""The state of a run, in one database file."""
