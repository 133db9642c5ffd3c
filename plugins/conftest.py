"""What holds for the tests of every plugin here, where several are installed in one environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_cache_answers(request: pytest.FixtureRequest) -> Iterator[None]:
    """The hooks of stillhouse-cache, where it is installed too, must not answer for a backend under test.

    So each plugin's tests run in a process of their own; those of the cache leave it switched on.
    """
    folders = {item.path.relative_to(request.config.rootpath).parts[1] for item in request.session.items}
    if "stillhouse-cache" in folders:
        assert folders == {"stillhouse-cache"}, "run the tests of stillhouse-cache by themselves"
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLHOUSE_DISABLE_PLUGINS", "stillhouse-cache")
        yield
