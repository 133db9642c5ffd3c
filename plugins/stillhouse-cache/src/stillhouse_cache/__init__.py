"""Stillhouse hooks that keep outputs on disk: an input that was answered once is not generated again."""

from __future__ import annotations

from stillhouse_cache.hooks import CacheHooks

__all__ = ["CacheHooks", "plugin"]

plugin = CacheHooks()
"""What the entry point names."""
