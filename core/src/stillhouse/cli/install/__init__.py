"""`stillhouse install`: what a name means, which installer the environment needs, and the command itself."""
