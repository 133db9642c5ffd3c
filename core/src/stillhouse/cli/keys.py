"""`stillhouse keys`: API keys in the system's keyring."""

from __future__ import annotations

import os
import sys

import click

from stillhouse.cli.help import Command, Commands
from stillhouse.cli.layout import print_table
from stillhouse.cli.output import guarded, print_note
from stillhouse.errors import ConfigurationError

__all__ = ["keys"]

_MAX_CHARS = 10_000


@click.group(
    "keys",
    cls=Commands,
    short_help="Store API keys in the system's keyring",
    examples=[("Store the key of a backend; the command asks for it", "stillhouse keys set openai")],
)
def keys() -> None:
    """Store API keys in the system's keyring. A variable of the environment wins over a stored key.

    NAME is an LLM, such as openai, or the variable that its key is read from, such as OPENAI_API_KEY.
    """


@keys.command("set", cls=Command, short_help="Store a key")
@click.argument("name")
@guarded
def set_(name: str) -> None:
    """Store a key. The command asks for it, or reads it from standard input, and never shows it."""
    from stillhouse._settings.stored_keys import set_key

    variable = _variable(name)
    if sys.stdin.isatty():
        key = click.prompt(f"Key for {variable}", hide_input=True, err=True)
    else:
        key = sys.stdin.read(_MAX_CHARS)
    set_key(variable, key.strip())
    print_note(f"the key for {variable} is stored")
    if os.environ.get(variable):
        print_note(f"the variable {variable} is set too, and wins while it is")


@keys.command("list", cls=Command, short_help="List the names of the stored keys")
@guarded
def list_() -> None:
    """List the names of the stored keys, and not the keys."""
    from stillhouse._settings.stored_keys import stored_names

    names = stored_names()
    if not names:
        print_note("no keys are stored; stillhouse keys set NAME stores one")
        return
    used = [(name, "the environment" if os.environ.get(name) else "the keyring") for name in names]
    print_table(("KEY", "READ FROM"), used)


@keys.command("remove", cls=Command, short_help="Remove a stored key")
@click.argument("name")
@guarded
def remove(name: str) -> None:
    """Remove a stored key."""
    from stillhouse._settings.stored_keys import remove_key, stored_names

    variable = name if name in stored_names() else _variable(name)
    if not remove_key(variable):
        raise ConfigurationError(
            f"no key is stored for {variable}", hint="stillhouse keys list shows the stored ones"
        )
    print_note(f"the key for {variable} is removed")


def _variable(name: str) -> str:
    """Return the variable that the key of an LLM is read from; a variable is returned as it is."""
    if name.isupper():
        return name
    from stillhouse.registry import default_registry

    registry = default_registry()
    name = registry.resolve(name).partition(":")[0]
    cls = registry.get_llm(name)
    variable = getattr(cls, "api_key_variable", None)
    if not isinstance(variable, str):
        raise ConfigurationError(
            f"{name} reads no API key", hint="stillhouse show NAME lists the fields of an LLM"
        )
    return variable
