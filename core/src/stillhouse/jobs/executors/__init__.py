"""Executors: where the generating of a run is done, if it is not done in the process of the run."""
