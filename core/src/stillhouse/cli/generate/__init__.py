"""`stillhouse generate`: the command, and what it does."""
