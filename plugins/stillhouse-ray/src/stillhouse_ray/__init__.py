"""Stillhouse on a Ray cluster: the executor `ray`, whose workers are actors."""

from __future__ import annotations

from stillhouse_ray.hooks import RayHooks

__all__ = ["RayHooks", "plugin"]

plugin = RayHooks()
"""What the entry point names."""
