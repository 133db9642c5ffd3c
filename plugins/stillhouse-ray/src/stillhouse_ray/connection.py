"""`connected`: a connection of this process to a Ray cluster, or to one that is started on this machine."""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillhouse import ConfigurationError
from stillhouse.jobs.executors import usable_cpus
from stillhouse_ray.addresses import ADDRESS, AUTO, check_reachable
from stillhouse_ray.needs import Needs
from stillhouse_ray.quiet import quiet, quiet_logger
from stillhouse_ray.waiting import wait

__all__ = ["Connected", "check", "connected"]

START_SECONDS = 180.0
"""How long Ray may take to start on this machine, or to connect."""

MAX_FOLDER = 17
"""How long the path of the folder for temporary files may be: those of Ray's sockets have 107 characters."""

LOCAL_TRIES = 2
"""How often a cluster is started on this machine, which takes Ray too long if the machine is busy."""

END_SECONDS = 60.0
"""How long it may take to end."""

LOST_SECONDS = 5.0
"""How long that may take without the head."""

MARGIN_SECONDS = 90
"""How long after the run Ray may end the process of it, if the head is out of reach."""

# No statistics are sent, and warnings are not written to standard error. Under `uv run`, Ray would start the
# workers by that too, in a copy of the working folder: they run with the Python of their node instead.
_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_BACKEND_LOG_LEVEL": "error",
}


@dataclass
class Connected:
    """A connection.

    Attributes:
        ray: the module.
        head: the address of the head.
        lost: set when the head is gone: calls of Ray that need it wait.
    """

    ray: Any
    head: str
    lost: threading.Event = field(default_factory=threading.Event)


def check(address: str | None, head_seconds: float) -> None:
    """Refuse what can be seen to be wrong before anything is started.

    Args:
        address: of the cluster.
        head_seconds: how long its head may be out of reach. Ray reads it when it is imported.

    Raises:
        ConfigurationError: it is no address, nobody listens there, or Ray cannot be imported.
    """
    matched = ADDRESS.fullmatch(address or "")
    if address not in (None, AUTO) and (matched is None or int(matched["port"]) > 65535):
        raise ConfigurationError(
            f"{address!r} is not the address of a Ray cluster",
            hint="give --executor ray for this machine, ray:auto on a node of a cluster, ray:HOST:PORT, "
            "or ray:ray://HOST:PORT from outside",
        )
    with _variables(head_seconds):
        ray = _imported()
    if address is not None and not ray.is_initialized():
        check_reachable(ray, address)


@contextlib.contextmanager
def connected(
    address: str | None, count: int | None, needs: Needs, head_seconds: float
) -> Iterator[Connected]:
    """Connect. What this process was connected to before stays connected.

    Args:
        address: the address, `auto`, or `None` for a cluster on this machine, which ends with the block.
        count: how many workers a cluster on this machine must have room for.
        needs: what each of them needs.
        head_seconds: how long the head may be out of reach.

    Raises:
        ConfigurationError: Ray cannot be imported, or there is no cluster.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_variables(head_seconds))
        ray = _imported()
        if ray.is_initialized():
            stack.enter_context(quiet(ray))
            yield Connected(ray, _head(ray))
            return
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            # A folder of its own, so that nothing stays.
            folder = tempfile.mkdtemp(prefix="stillhouse-ray-", dir=_short_folder())
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            options |= _local(count, needs) | {"address": "local", "_temp_dir": folder}
        else:
            options["address"] = address
        stack.enter_context(quiet(ray))
        yield stack.enter_context(_started(ray, options, address))


def _head(ray: Any) -> str:
    """Return the address of the head of the cluster."""
    return str(ray.get_runtime_context().gcs_address)


def _imported() -> Any:
    level = logging.getLogger("ray").level
    try:
        return importlib.import_module("ray")
    except Exception as error:  # a broken installation raises whatever it likes
        raise ConfigurationError(
            f"Ray cannot be imported: {type(error).__name__}: {error}",
            hint="run stillhouse install --upgrade ray",
        ) from error
    finally:
        logging.getLogger("ray").setLevel(level)


@contextlib.contextmanager
def _variables(head_seconds: float) -> Iterator[None]:
    """Set the variables that Ray reads when it is imported and started; what the user has set stays."""
    # After this time without the head, Ray ends this process: the run shall end before.
    wanted = _VARIABLES | {
        "RAY_gcs_rpc_server_reconnect_timeout_s": f"{math.ceil(head_seconds) + MARGIN_SECONDS}"
    }
    new = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def _short_folder() -> str | None:
    """Return a folder whose path leaves room for that of a socket; `None` for the usual one."""
    return "/tmp" if len(tempfile.gettempdir()) > MAX_FOLDER and Path("/tmp").is_dir() else None  # noqa: S108


def _local(count: int | None, needs: Needs) -> dict[str, Any]:
    """Return what a cluster on this machine has."""
    cpus = usable_cpus() or 1
    wanted = count or max(1, int(cpus // needs.num_cpus) if needs.num_cpus else cpus)
    return {
        "num_cpus": max(cpus, math.ceil(wanted * needs.num_cpus)),
        "resources": {name: amount * wanted for name, amount in needs.resources.items()},
        "include_dashboard": False,
    }


@contextlib.contextmanager
def _started(ray: Any, options: dict[str, Any], address: str | None) -> Iterator[Connected]:
    """Start or connect, in bounded time; disconnect at the end, and end what was started."""
    tries = LOCAL_TRIES if address is None else 1
    while True:
        tries -= 1
        connection = _Connection(ray, options)
        error = connection.open()
        if error is None:
            break
        if tries == 0 or "timed out" not in str(error):  # Ray gives itself half a minute
            raise _explained(error, address) from error
    made = Connected(ray, "")
    try:
        # From outside, only the address of the client's server can be reached.
        made.head = address if address and address.startswith("ray://") else _head(ray)
        yield made
    finally:
        connection.close(LOST_SECONDS if made.lost.is_set() else END_SECONDS)


class _Connection:
    """Connects in a thread, so that Ray leaves the handlers of signals alone.

    The thread stays as long as the connection: the system ends the processes of a cluster that was started
    here when it ends.
    """

    def __init__(self, ray: Any, options: dict[str, Any]) -> None:
        self._ray = ray
        self._options = options
        self._error: BaseException | None = None
        self._ready, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, name="stillhouse-ray-connection", daemon=True)

    def open(self) -> BaseException | None:
        """Connect, and return why that is not possible, if it is not."""
        try:
            with quiet_logger():
                self._thread.start()
                wait(START_SECONDS, self._ready)
            if not self._ready.is_set():
                return ConfigurationError(f"Ray did not answer within {START_SECONDS:g} s")
        except BaseException:
            self.close(END_SECONDS)
            raise
        return self._error

    def close(self, seconds: float) -> None:
        """Disconnect, which may take so many seconds."""
        self._over.set()
        if self._ready.is_set():
            self._thread.join(seconds)

    def _hold(self) -> None:
        try:
            self._ray.init(**self._options)
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()
        if self._error is None:
            self._over.wait()
            self._ray.shutdown()


def _explained(error: BaseException, address: str | None) -> ConfigurationError:
    text = " ".join(str(error).split())
    if address is None:
        return ConfigurationError(
            f"Ray cannot be started on this machine: {text[:500]}",
            hint="try again when the machine is less busy; ray start --head shows more",
        )
    if "ersion mismatch" in text:
        return ConfigurationError(
            f"the cluster runs other versions than this command: {text[:500]}",
            hint="install the same versions of Python and Ray on the nodes and here",
        )
    if address.startswith("ray://") and isinstance(error, (ImportError, ValueError)):
        return ConfigurationError(
            f"Ray's client cannot be used: {text[:500]}", hint='run stillhouse install "ray[client]"'
        )
    hint = "start one with ray start --head, or give --executor ray for one on this machine"
    if address == AUTO:
        return ConfigurationError(f"there is no Ray cluster on this machine: {text[:300]}", hint=hint)
    return ConfigurationError(
        f"the Ray cluster at {address} cannot be used from here: {text[:300]}",
        hint="run this command on a node of the cluster, or give ray:ray://HOST:10001 from outside",
    )
