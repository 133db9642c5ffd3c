"""A bulk run: what is asked for, online and offline, and the assembly of its output."""
