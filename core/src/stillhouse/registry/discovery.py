"""What a registry has found and loaded since it was made or refreshed: `Discovery`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stillhouse.registry.assessment import Assessment
from stillhouse.registry.candidates import Candidate, Scan, from_entry_points, scan
from stillhouse.registry.info import PluginInfo, with_loaded
from stillhouse.registry.loading import Loaded, load_hook, load_llm
from stillhouse.registry.policy import Policy, current_policy

if TYPE_CHECKING:
    import importlib_metadata

__all__ = ["Discovery"]

_logger = logging.getLogger("stillhouse.registry")


class Discovery:
    """One scan, its assessment under the latest policy, and what was imported of it.

    Args:
        entry_points: use these instead of looking through the installed distributions.
        policy: use this instead of reading the environment and the user's config file.
        lock: the registry's lock.

    Attributes:
        loaded: the outcome of each import, by its candidate.
    """

    def __init__(
        self,
        entry_points: Sequence[importlib_metadata.EntryPoint] | None,
        policy: Policy | None,
        lock: threading.RLock,
    ) -> None:
        self.loaded: dict[Candidate, Loaded] = {}
        self._entry_points = entry_points
        self._policy = policy
        self._lock = lock
        self._scan: Scan | None = None
        self._assessment: Assessment | None = None
        self._warned: set[str] = set()

    def scan(self) -> Scan:
        """Look through the installed distributions, at the first call."""
        with self._lock:
            if self._scan is None:
                if self._entry_points is None:
                    self._scan = scan()
                else:
                    import importlib_metadata

                    self._scan = from_entry_points(
                        self._entry_points, importlib_metadata.version("stillhouse")
                    )
            return self._scan

    def assess(self) -> Assessment:
        """Read the switches; assess what was found again only if they have changed."""
        policy = current_policy() if self._policy is None else self._policy
        assessment = self._assessment
        if assessment is None or assessment.policy != policy:
            assessment = self._assessment = Assessment(self.scan(), policy)
        return assessment

    def warn(self, assessment: Assessment) -> None:
        """Log each warning of an assessment once."""
        for sentence in assessment.warnings:
            if sentence not in self._warned:
                self._warned.add(sentence)
                _logger.warning("%s", sentence)

    def load(self, candidate: Candidate) -> Loaded:
        """Import a candidate once; called with the lock held."""
        loaded = self.loaded.get(candidate)
        if loaded is None:
            loaded = load_llm(candidate) if candidate.kind == "llm" else load_hook(candidate)
            self.loaded[candidate] = loaded
        return loaded

    def now(self, info: PluginInfo) -> PluginInfo:
        """Add to an assessed plugin what loading it showed, if it was loaded."""
        loaded = None if info.status in ("disabled", "settled") else self.loaded.get(info.candidate)
        return info if loaded is None else with_loaded(info, loaded)
