"""A bulk run: its command, its work online and offline, and the assembly of its output."""
