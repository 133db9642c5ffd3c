"""`stillhouse generate`: the command, its options, and its work."""
