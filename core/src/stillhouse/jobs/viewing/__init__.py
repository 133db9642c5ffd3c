"""`stillhouse view`: the rows of a run in a page on this machine, also while the run goes on."""
