"""Copies of a run's state outside its machine: written during the run, and restored on another machine."""
