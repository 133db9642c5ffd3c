"""Credentials of AWS, and where they are: in the environment, in the files of a profile, with botocore."""

from __future__ import annotations

import asyncio
import configparser
import importlib
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillhouse import ConfigurationError

__all__ = ["Credentials", "Profile", "environment_credentials", "of_botocore", "read_profile", "usable"]

EXTRA = "stillhouse-bedrock[aws]"

_BY_BOTOCORE = ("role_arn", "sso_session", "sso_start_url", "login_session")
"""What in a profile comes before its keys, and takes a request to AWS."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request is signed with.

    Attributes:
        access_key_id: which key it is.
        secret_access_key: the key.
        session_token: of temporary credentials; an empty string for others.
    """

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Profile:
    """What the two files of AWS say of a profile.

    Attributes:
        name: its name.
        region: its region, or an empty string.
        credentials: its keys, if it has any of its own.
        source: the setting from which botocore gets its credentials, or an empty string.
        exists: whether either file has it.
    """

    name: str
    region: str = ""
    credentials: Credentials | None = field(default=None, repr=False)
    source: str = ""
    exists: bool = False


def usable(given: Any) -> Credentials:
    """Return credentials in any of the forms in use: ours, botocore's objects, or the answer of STS.

    Raises:
        TypeError: they have another form.
    """
    if isinstance(given, Credentials):
        return given
    freeze = getattr(given, "get_frozen_credentials", None)
    if freeze is not None:
        given = freeze()
    if isinstance(given, Mapping):
        found = [given.get(name) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
    else:
        found = [getattr(given, name, None) for name in ("access_key", "secret_key", "token")]
    key, secret, token = (text.strip() if isinstance(text, str) else text for text in found)
    if not (isinstance(key, str) and key and isinstance(secret, str) and secret):
        raise TypeError(f"there are no credentials in {type(given).__name__}")
    return Credentials(key, secret, token if isinstance(token, str) else "")


def environment_credentials() -> Credentials | None:
    """Return the credentials in the environment.

    Raises:
        ConfigurationError: there is an access key without a secret.
    """
    key, secret, token = (
        os.environ.get(f"AWS_{name}", "").strip()
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
    )
    if not key:
        return None
    if not secret:
        raise ConfigurationError(
            "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not", hint="set both, or neither"
        )
    return Credentials(key, secret, token)


def read_profile(name: str | None) -> Profile:
    """Return what the files of AWS say of a profile; `None` is that of the environment, or `default`.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    chosen = name or os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    shared = _section("AWS_SHARED_CREDENTIALS_FILE", "credentials", chosen)
    config = _section("AWS_CONFIG_FILE", "config", chosen)
    both = {**(config or {}), **(shared or {})}
    source = next((key for key in _BY_BOTOCORE if key in both), "")
    found = None
    if not source:
        # botocore looks for them in this order.
        found = _keys(shared or {})
        if found is None and "credential_process" in both:
            source = "credential_process"
        elif found is None:
            found = _keys(config or {})
    exists = shared is not None or config is not None
    return Profile(chosen, both.get("region", "").strip(), found, source, exists)


def of_botocore(profile: str | None) -> Any:
    """Return botocore's credentials, which renew themselves, or `None` if it finds none; it may ask AWS.

    Raises:
        ImportError: botocore is not installed.
    """
    session = importlib.import_module("botocore.session").Session(profile=profile)
    return session.get_credentials()


async def called(provider: Any) -> Credentials:
    """Return what a provider of credentials gives; it may be a coroutine function, or block."""
    given = await asyncio.to_thread(provider)
    if inspect.isawaitable(given):
        given = await given
    return await asyncio.to_thread(usable, given)  # botocore's may have to be renewed


def _keys(section: Mapping[str, str]) -> Credentials | None:
    names = ("access_key_id", "secret_access_key", "session_token")
    key, secret, token = (section.get(f"aws_{name}", "").strip() for name in names)
    return Credentials(key, secret, token) if key and secret else None


def _section(variable: str, file: str, name: str) -> dict[str, str] | None:
    """Return the section of a profile in one of the files; in `config` it has another heading."""
    path = Path(os.environ.get(variable) or f"~/.aws/{file}").expanduser()
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        # What configparser says quotes the line, which may be a key.
        raise ConfigurationError(
            f"the file {path} cannot be read ({type(error).__name__})", hint=f"correct it, or set {variable}"
        ) from None
    for heading in parser.sections():
        words = heading.replace('"', " ").replace("'", " ").split()
        if file == "config" and len(words) > 1 and words[0] == "profile":
            words = words[1:]
        elif file == "config" and name != "default":
            continue
        if " ".join(words) == name:
            return dict(parser.items(heading))
    return None
