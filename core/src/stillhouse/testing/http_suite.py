"""`HTTPConformance`: the rules that backends which ask a server keep besides."""

from __future__ import annotations

from stillhouse.testing.suite import LLMConformance

__all__ = ["HTTPConformance"]


class HTTPConformance(LLMConformance):
    """To come."""
