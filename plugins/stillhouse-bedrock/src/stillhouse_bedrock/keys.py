"""`Keys`: the credentials of one loaded LLM, renewed when they are old or AWS refuses them as expired."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from stillhouse import ConfigurationError, GenerationError
from stillhouse_bedrock.credentials import (
    EXTRA,
    Credentials,
    called,
    environment_credentials,
    of_botocore,
    read_profile,
    usable,
)

__all__ = ["Keys", "find_credentials"]

_SECONDS = 60.0
"""How long what a provider or botocore gave is used before it is asked again: both renew their own."""

_used: ContextVar[Credentials | None] = ContextVar("_used", default=None)
"""What the last attempt of the current context was signed with."""


def find_credentials(profile: str | None) -> Any:
    """Return the credentials that the machine has, as `usable` takes them, or `None` if it has none.

    Those of the environment come first, unless a profile is named; then the profile's, then whatever else
    botocore finds: roles, SSO, processes, containers, instances. It may wait.

    Args:
        profile: the name of a profile; `None` is that of the environment, or `default`.

    Raises:
        ConfigurationError: they are there, and cannot be had.
    """
    if profile is None and (found := environment_credentials()) is not None:
        return found
    told = read_profile(profile)
    if told.credentials is not None:
        return told.credentials
    if not told.exists and told.name != "default":
        raise ConfigurationError(
            f"the AWS config files have no profile {told.name!r}",
            hint="name one that is in ~/.aws/credentials or ~/.aws/config, or set other credentials",
        )
    try:
        return of_botocore(profile)
    except ImportError:
        if told.source:
            raise ConfigurationError(
                f"the profile {told.name!r} gets its credentials from {told.source}, which requires botocore",
                hint=f'stillhouse install "{EXTRA}"',
            ) from None
        return None
    except Exception as error:  # botocore has more than fifty classes of them
        raise ConfigurationError(
            f"botocore cannot get AWS credentials: {error}",
            hint=f"check the profile {told.name!r}; after `aws sso login`, run the same command again",
        ) from error


class Keys:
    """The credentials that attempts are signed with.

    Args:
        find: returns them, as `usable` takes them, or `None`; it may block.
        provider: the user's function for them, instead of `find`; it may be a coroutine function.
    """

    def __init__(self, find: Callable[[], Any], provider: Callable[[], Any] | None = None) -> None:
        self._find = find
        self._provider = provider
        self._found: Any = None
        self._current: Credentials | None = None
        self._expired: Credentials | None = None
        self._until = 0.0
        self._is_on_trial = False
        self._lock = asyncio.Lock()

    def exist(self) -> bool:
        """Whether there are any; it may wait."""
        if self._provider is None and self._found is None:
            self._found = self._find()
        return self._provider is not None or self._found is not None

    async def renew(self) -> None:
        """See to it that there are credentials that may be used.

        Raises:
            GenerationError: there are none but those that have expired.
        """
        if self._current is not None and time.monotonic() < self._until:
            return
        async with self._lock:
            if self._current is not None and time.monotonic() < self._until:
                return
            found = await self._read()
            if found == self._expired:
                self._found = None  # there may be others the next time
                raise GenerationError(
                    "the AWS credentials have expired, and no others are available yet",
                    kind="authentication",
                    attempts=1,
                    hint="log in again, or set fresh ones, and run the same command again",
                    stops_run=True,
                )
            if found != self._current:
                self._current = found
            is_own = self._provider is None and isinstance(self._found, Credentials)
            self._until = float("inf") if is_own else time.monotonic() + _SECONDS

    async def _read(self) -> Credentials:
        if self._provider is not None:
            return await called(self._provider)
        if self._found is None:
            self._found = await asyncio.to_thread(self._find)
        # Those of botocore may have to be renewed, which blocks.
        found = self._found
        return found if isinstance(found, Credentials) else await asyncio.to_thread(usable, found)

    def use(self) -> Credentials:
        """Return the credentials for an attempt, after `renew`."""
        assert self._current is not None
        _used.set(self._current)
        return self._current

    def renewable(self) -> bool:
        """Whether to try again what was refused because its credentials have expired: with others.

        They are looked for once; if those are refused before anything succeeded with them, that was it.
        """
        used = _used.get()
        if used is not None and used is not self._current:
            return True  # others have taken their place meanwhile
        if self._is_on_trial:
            return False
        self._expired, self._current, self._found = self._current, None, None
        self._is_on_trial = True
        return True

    def worked(self) -> None:
        """Note that the current credentials are good."""
        self._is_on_trial = False
