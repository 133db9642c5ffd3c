"""What a shell completes: names of backends, and the fields and parameters of the one that is named.

Names need no import of a plugin. Fields and parameters import the one plugin that `--llm` names. Whatever
goes wrong, nothing is completed: a message would stand in the middle of what somebody types.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.standard import to_errors

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["complete_fields", "complete_installable", "complete_llms", "complete_parameters"]


def complete_llms(_context: click.Context, _parameter: click.Parameter, text: str) -> list[CompletionItem]:
    """Complete the name of a backend."""
    try:
        from stillhouse.registry import default_registry

        infos = [info for info in default_registry().plugins() if info.kind == "llm"]
    except Exception:
        return []
    return _matching(text, ((info.name, info.summary) for info in infos))


def complete_installable(
    _context: click.Context, _parameter: click.Parameter, text: str
) -> list[CompletionItem]:
    """Complete the name of a plugin that can be installed; where a path is begun, a file."""
    from click.shell_completion import CompletionItem

    if text.startswith((".", "/", "~")):
        return [CompletionItem(text, type="file")]
    try:
        from stillhouse.registry.available import available
    except Exception:
        return []
    return _matching(text, ((item.name, item.summary) for item in available()))


def complete_fields(context: click.Context, _parameter: click.Parameter, text: str) -> list[CompletionItem]:
    """Complete the name of a field of the LLM."""
    return _described(context, "fields", text)


def complete_parameters(
    context: click.Context, _parameter: click.Parameter, text: str
) -> list[CompletionItem]:
    """Complete the name of a generation parameter of the LLM."""
    return _described(context, "parameters", text)


def _described(context: click.Context, what: str, text: str) -> list[CompletionItem]:
    name = str(context.params.get("llm") or context.params.get("name") or "").partition(":")[0]
    if not name or "=" in text:
        return []
    try:
        from stillhouse._settings.describe import describe
        from stillhouse.registry import default_registry

        with to_errors():  # what the plugin prints is no completion
            entries: list[dict[str, Any]] = describe(default_registry().get_llm(name))[what]
    except Exception:
        return []
    return _matching(text, ((f"{entry['name']}=", entry["description"]) for entry in entries))


def _matching(text: str, found: Iterable[tuple[str, str]]) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    # A help is a line of a protocol.
    items = {name: " ".join(description.split()) for name, description in found if name.startswith(text)}
    return [CompletionItem(name, help=description) for name, description in sorted(items.items())]
