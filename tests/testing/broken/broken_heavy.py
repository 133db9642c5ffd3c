"""A backend that imports an engine before anybody needs it; beside it, one of that name is put."""

import vllm  # noqa: F401
from good_backends import Good


class Heavy(Good):
    """Imports its engine at once."""
