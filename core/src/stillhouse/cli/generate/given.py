"""The command line of a run as it was typed, in parts that belong together, for the report."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["given_parts"]


def given_parts(context: click.Context) -> list[list[str]]:
    """Return what was typed: the command, the arguments, and each option with its value.

    Options that were not typed are left out, and the long names stand for the short ones. The secrets that
    an assignment names are masked.
    """
    from stillhouse.jobs.launch.given import assignment, option_shown
    from stillhouse.jobs.sources.names import shown

    parts = [["stillhouse", "generate"]]
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        value: Any = context.params.get(name)
        if isinstance(parameter, click.Argument):
            parts += [[shown(str(item))] for item in value]
            continue
        option = max(parameter.opts, key=len)
        if getattr(parameter, "is_flag", False) and value is True:
            parts.append([option])
            continue
        for item in value if parameter.multiple else (value,):
            text = str(option_shown(name, item))
            parts.append([option, assignment(text) if name in ("fields", "param") else text])
    return parts
