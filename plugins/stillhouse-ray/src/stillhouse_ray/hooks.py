"""The hooks. The registry imports this module when the first run starts, whatever that run uses: nothing of
Ray is imported before it is asked for.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from stillhouse import hookimpl

if TYPE_CHECKING:
    from stillhouse import LLM
    from stillhouse.protocols import Executor
    from stillhouse_ray.settings import RaySettings

__all__ = ["RayHooks"]


class RayHooks:
    """The plugin object."""

    def __init__(self) -> None:
        self._settings: RaySettings | None = None

    @hookimpl
    def settings_model(self) -> type[RaySettings]:
        """What each worker asks a cluster for."""
        from stillhouse_ray.settings import RaySettings

        return RaySettings

    @hookimpl
    def configure(self, settings: RaySettings) -> None:
        """Take the settings."""
        self._settings = settings

    @hookimpl
    def make_executor(
        self, name: str, address: str | None, llm: LLM, workers: int | None
    ) -> AbstractContextManager[Executor] | None:
        """Return the executor `ray`."""
        if name != "ray":
            return None
        from stillhouse_ray.executor import RayExecutor
        from stillhouse_ray.settings import RaySettings

        return RayExecutor(llm, address, workers, self._settings or RaySettings())
