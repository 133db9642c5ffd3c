"""The map of which LLM holds which CUDA devices, shared by the processes of one user on one host.

It is a JSON file under a lock, in a folder that only the user can reach. A holding counts for nothing
once its process is gone: a process is known by its number, by when it started and by the boot of the
host, for a number comes again. A file that is broken, huge or not the user's own counts as no map.
"""

from __future__ import annotations

import json
import os
import platform
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from stillhouse.errors import ConfigurationError
from stillhouse.local.devices import INSTALL

__all__ = ["Holding", "holding_of", "holdings"]

_PATIENCE = 60.0  # seconds; the lock is held for milliseconds
_MAX_BYTES = 1 << 20
_IS_LINUX = sys.platform == "linux"
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class Holding(TypedDict):
    """What one LLM holds: `devices` are UUIDs; `started` is in the units of the system."""

    llm: str
    pid: int
    started: float
    boot: str
    devices: list[str]


def holding_of(llm: str, devices: list[str]) -> Holding:
    """What an LLM of this process holds."""
    pid = os.getpid()
    return Holding(llm=llm, pid=pid, started=_started(pid) or 0.0, boot=_boot(), devices=devices)


@contextmanager
def holdings() -> Iterator[dict[str, Holding]]:
    """The map, locked, without the dead; written back at the end, unless the body raises.

    Raises:
        ConfigurationError: there is no place for it, or it remains locked.
    """
    import filelock

    try:
        # The home folder may be shared with other hosts, whose processes are not known here.
        host = re.sub(r"[^\w.-]", "_", platform.node()) or "host"
        path = _folder() / f"cuda-{host}.json"
        lock_path = path.with_name(f"{path.name}.lock")
        if lock_path.is_symlink():
            lock_path.unlink()
        lock = filelock.FileLock(lock_path, timeout=_PATIENCE, mode=0o600)
        lock.acquire()
    except filelock.Timeout:
        raise ConfigurationError(
            f"another process has kept {lock_path} locked for {_PATIENCE:.0f} seconds",
            hint="end that process if it hangs, or set disable_cuda_device_placement to True",
        ) from None
    except (OSError, NotImplementedError) as error:  # some network file systems have no locks
        raise _no_place(error) from None
    try:
        alive = {key: holding for key, holding in _read(path).items() if _is_alive(holding)}
        yield alive
        try:
            _write(path, json.dumps(alive))
        except OSError as error:
            raise _no_place(error) from None
    finally:
        lock.release()


def _no_place(error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"who holds which CUDA device cannot be written down: {error}",
        hint="set XDG_RUNTIME_DIR to a folder of your own, or disable_cuda_device_placement to True",
    )


def _folder() -> Path:
    """The user's own folder, the same for all processes of the user."""
    import platformdirs

    user = os.getuid() if sys.platform != "win32" else os.environ.get("USERNAME", "")
    runtimes = [os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{user}"]
    places = [
        Path(place, "stillhouse") for place in runtimes if Path(place).is_absolute() and _is_ours(place)
    ]
    places.append(Path(platformdirs.user_state_dir("stillhouse", appauthor=False), "run"))
    places.append(Path(tempfile.gettempdir(), f"stillhouse-{user}"))
    problem = OSError("no folder")
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not _is_ours(place):
                raise PermissionError(f"{place} is a link, or belongs to somebody else")
            if sys.platform != "win32":
                place.chmod(0o700)
            if os.access(place, os.W_OK):
                return place
        except OSError as error:
            problem = error
    raise problem


def _is_ours(folder: str | Path) -> bool:
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and _is_own(status)


def _is_own(status: os.stat_result) -> bool:
    return sys.platform == "win32" or status.st_uid == os.getuid()


def _read(path: Path) -> dict[str, Holding]:
    """What is written in the map; nothing if it is no map that this user wrote."""
    try:
        # Without waiting: a pipe under its name would never open.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _NO_LINK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not (stat.S_ISREG(status.st_mode) and _is_own(status) and status.st_size <= _MAX_BYTES):
                return {}
            stored = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    entries = stored.items() if isinstance(stored, dict) else ()
    return {key: entry for key, entry in entries if _is_holding(entry)}


def _is_holding(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and type(value.get("pid")) is int
        and 0 < value["pid"] < 2**31
        and type(value.get("started")) in (int, float)
        and abs(value["started"]) < 2**63
        and isinstance(value.get("boot"), str)
        and isinstance(value.get("llm"), str)
        and isinstance(value.get("devices"), list)
        and all(isinstance(device, str) for device in value["devices"])
    )


def _write(path: Path, content: str) -> None:
    fresh = path.with_name(f"{path.name}.new")  # one name, so that a crash leaves no more than one behind
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    fresh.replace(path)


def _is_alive(holding: Holding) -> bool:
    if holding["boot"] != _boot():
        return False
    started = _started(holding["pid"])
    return started is not None and abs(started - holding["started"]) < 1


def _started(pid: int) -> float | None:
    """When a process started; `None` if it has ended, even if its parent has not noticed."""
    if _IS_LINUX:
        # In ticks since the boot, which setting the clock does not change.
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if fields[0] in (b"Z", b"X") else float(fields[19])
    try:
        import psutil
    except ImportError:
        raise ConfigurationError("placing LLMs on CUDA devices needs psutil", hint=INSTALL) from None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
