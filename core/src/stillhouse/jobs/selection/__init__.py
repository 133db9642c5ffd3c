"""Which rows of an input belong to a run, and which of them ask for the same."""
