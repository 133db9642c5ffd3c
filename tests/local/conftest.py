"""What holds for every test here: no thread of an LLM is left, no event loop is set."""

from ..support import nothing_is_left_running, registry

__all__ = ["nothing_is_left_running", "registry"]
