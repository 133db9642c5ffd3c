"""The reporting of a run: live progress, a summary, and an HTML report."""
