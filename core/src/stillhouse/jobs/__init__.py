"""Bulk runs: rows are read, generated, written and forgotten in a window."""
