"""What an LLM is set up with, and how that is written down."""
