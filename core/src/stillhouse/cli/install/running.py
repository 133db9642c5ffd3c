"""Running an installer: what it says is shown, and what went wrong is said in a sentence."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from stillhouse.cli.output import print_note
from stillhouse.errors import StillhouseError

__all__ = ["installed_plugins", "run_installer", "without_secrets", "written"]

_MAX_LINES = 200
_SECONDS_TO_END = 10

_LOGIN = re.compile(r"(?<=://)(?!git@)[^/@\s'\"]+(?=@)")
_QUERY = re.compile(r"(?<=://)([^\s?'\"]*\?)[^\s#'\"]+")

_UNREACHABLE = re.compile(
    r"new connection|name resolution|name or service not known|getaddrinfo failed|connect ?timeout|"
    r"proxyerror|connection refused|network is unreachable|dns error|error sending request|tcp connect error|"
    r"failed to fetch|network (connectivity is|was) disabled|read timed out|max retries exceeded",
    re.IGNORECASE,
)
_FOREIGN = re.compile(r"externally[ -]managed", re.IGNORECASE)
_FORBIDDEN = re.compile(r"permission denied|read-only file system|access is denied", re.IGNORECASE)
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_UNKNOWN = re.compile(
    r"no matching distribution found|not found in the package registry|no versions? of|no solution found|"
    r"conflicting dependencies|not found in the provided package locations",
    re.IGNORECASE,
)


def written(command: Sequence[str]) -> str:
    """Write a command as it can be pasted into a shell, without the logins of addresses."""
    words = [without_secrets(word) for word in command]
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def run_installer(command: Sequence[str]) -> None:
    """Run an installer to its end. What it prints goes to standard error.

    Raises:
        StillhouseError: it could not be started, or did not install everything.
    """
    print_note(f"running  {written(command)}")
    variables = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", **os.environ}
    tail: collections.deque[str] = collections.deque(maxlen=_MAX_LINES)
    sys.stderr.flush()
    try:
        # Its standard output is ours, so that a terminal shows how far a download is.
        process = subprocess.Popen(  # noqa: S603 - no shell; each word is checked or ours
            command, env=variables, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
        )
    except OSError as error:
        raise StillhouseError(
            f"{command[0]} cannot be started: {error.strerror}", hint="install it again, or run the command"
        ) from None
    with process:
        try:
            for line in process.stderr or ():
                line = without_secrets(line.rstrip("\n"))
                tail.append(line)
                print_note(line)
            status = process.wait()
        except BaseException:
            _end(process)
            raise
    if status:
        raise _failure(command, status, "\n".join(tail))


def _end(process: subprocess.Popen[str]) -> None:
    """Let an installer end by itself, as one that was interrupted with this command; then make it end."""
    with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
        process.communicate(timeout=_SECONDS_TO_END)
    if process.poll() is None:
        process.terminate()


def _failure(command: Sequence[str], status: int, text: str) -> StillhouseError:
    """Return what went wrong, as far as the words of the installer say it."""
    again = f"then run {written(command)}"
    if _FOREIGN.search(text):
        return StillhouseError(
            f"the system manages the packages of {sys.executable}; nothing was installed",
            hint="use an environment of your own: python3 -m venv .venv && .venv/bin/pip install stillhouse",
        )
    if _FULL.search(text):
        return StillhouseError(
            "the disk is full; the installation is not complete", hint=f"make room, {again}"
        )
    if _FORBIDDEN.search(text):
        return StillhouseError(
            f"the installer may not write to {sys.prefix}; the installation is not complete",
            hint=f"become the owner of that folder, {again}",
        )
    if _UNREACHABLE.search(text):
        return StillhouseError(
            "the package index could not be reached; nothing was installed",
            hint="check the network and the address of the index, or give a wheel: "
            "stillhouse install ./PACKAGE.whl",
        )
    if _UNKNOWN.search(text):
        return StillhouseError(
            "the package index has no version that fits this Python and the installed packages; "
            "nothing was installed",
            hint="check the name; in a checkout, give the folder: stillhouse install ./plugins/NAME",
        )
    return StillhouseError(
        f"the installer ended with status {status}", hint="the lines above say why; correct that, " + again
    )


def installed_plugins() -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the plugins that the next command finds: kind, name and distribution to the entry of `list`.

    Another process lists them: this one may have begun with another version of the core.

    Raises:
        StillhouseError: the interpreter of this process does not find Stillhouse.
    """
    command = [sys.executable, "-P", "-m", "stillhouse", "list", "--json"]
    done = subprocess.run(  # noqa: S603 - the words are ours
        command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    try:
        found = json.loads(done.stdout)
        return {
            (kind, entry["name"], entry["distribution"]): entry
            for kind, key in (("llm", "llms"), ("hook", "hooks"))
            for entry in found[key]
        }
    except (ValueError, KeyError, TypeError):
        raise StillhouseError(
            f"{sys.executable} does not find stillhouse, so no package would be found there either",
            hint="if this is a file of pex or shiv, make it again with the packages in it; else install "
            "stillhouse in an environment",
        ) from None


def without_secrets(text: str) -> str:
    """Return a text without the logins and the queries of the addresses in it."""
    return _QUERY.sub(r"\1****", _LOGIN.sub("****", text))
