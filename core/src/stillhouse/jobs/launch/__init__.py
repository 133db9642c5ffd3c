"""A run from its options to its result: what `stillhouse generate` and `stillhouse.run` share."""
