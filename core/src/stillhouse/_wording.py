"""Words of messages that many modules need: counts, times, and the command that installs a package."""

from __future__ import annotations

import re
import time

__all__ = ["duration", "install_command", "moment", "number_of"]


def duration(seconds: float) -> str:
    """Format a time span, such as `3 min 20 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def moment(seconds: float) -> str:
    """Format seconds since 1970 as local date and time with how far that is from UTC."""
    text = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))
    return f"{text[:-2]}:{text[-2:]}"


def number_of(number: int, noun: str, verbs: str = "", plural: str = "") -> str:
    """Return a count with its noun, such as `1 row` or `2,000 rows`.

    Args:
        number: how many.
        noun: in the singular.
        verbs: what follows in the singular and in the plural, such as `is/are`.
        plural: the plural of the noun, where it is not regular.
    """
    one, _, many = verbs.partition("/")
    verb = one if number == 1 else many
    if number != 1:
        noun = plural or noun + ("es" if noun.endswith("ch") else "s")
    return f"{number:,} {noun} {verb}".rstrip()


def install_command(*packages: str, options: str = "") -> str:
    """Return the command that installs packages into the environment that Stillhouse runs in.

    A shell's `pip` may belong to another environment, and those of pipx and uv have none.

    Args:
        packages: names, with extras and versions as pip takes them; what a shell would read is quoted.
        options: of the command, such as `--upgrade`.
    """
    names = (name if re.fullmatch(r"[\w.=-]+", name) else f'"{name}"' for name in packages)
    return " ".join(filter(None, ("stillhouse install", options, *names)))
