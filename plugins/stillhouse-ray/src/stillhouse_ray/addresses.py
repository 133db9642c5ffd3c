"""`check_reachable`: whether there may be a Ray cluster at an address."""

from __future__ import annotations

import os
import re
import socket
from typing import Any

from stillhouse import ConfigurationError

__all__ = ["ADDRESS", "AUTO", "check_reachable"]

ADDRESS = re.compile(r"(?:ray://)?(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):(?P<port>[0-9]{1,5})")
"""The address of a cluster."""

AUTO = "auto"
"""The address of the cluster that this machine belongs to."""

CONNECT_SECONDS = 10.0
"""How long the head of a cluster may take to accept a connection, and to greet."""

# What opens a connection of HTTP/2: a fixed text, and a frame of settings, which the other end sends too. The
# fourth byte is the type of a frame.
_SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS


def check_reachable(ray: Any, address: str) -> None:
    """Refuse an address where no cluster is: Ray itself would wait for minutes.

    Args:
        ray: the module.
        address: the address, or `auto`.

    Raises:
        ConfigurationError: nobody listens there, or something else than Ray.
    """
    given = _found(ray) if address == AUTO else address
    matched = ADDRESS.fullmatch(given)
    if matched is None:
        return
    place = matched["host"].strip("[]"), int(matched["port"])
    try:
        with socket.create_connection(place, CONNECT_SECONDS) as stream:
            problem = "" if _speaks_http2(stream) else "something else listens there"
    except OSError as error:
        problem = error.strerror or str(error)
    if problem:
        raise ConfigurationError(
            f"there is no Ray cluster at {given}: {problem}",
            hint="check the address: ray status shows that of a cluster on one of its nodes"
            if address != AUTO or os.environ.get("RAY_ADDRESS")
            else "start one with ray start --head, or give --executor ray for one on this machine",
        )


def _found(ray: Any) -> str:
    """Return the address that Ray would use, which may be that of a cluster that was killed."""
    try:
        return str(ray._private.services.get_ray_address_from_environment(AUTO, None))
    except Exception:  # there is none, or this version of Ray finds it in another way: then it says so itself
        return os.environ.get("RAY_ADDRESS", "")


def _speaks_http2(stream: socket.socket) -> bool:
    """Whether the other end begins as a server of Ray does, whose calls are HTTP/2."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return True
    stream.sendall(_HELLO)
    answer = b""
    while len(answer) < len(_SETTINGS) and (part := stream.recv(len(_SETTINGS) - len(answer))):
        answer += part
    return len(answer) == len(_SETTINGS) and answer[3] == _SETTINGS[3]
