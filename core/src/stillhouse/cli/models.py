"""`stillhouse models`: the models that a backend's provider offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.completing import complete_llms
from stillhouse.cli.help import Command
from stillhouse.cli.layout import print_table
from stillhouse.cli.output import guarded, print_json, print_note, usage_errors

if TYPE_CHECKING:
    from stillhouse.llm import LLM
    from stillhouse.registry import Registry
    from stillhouse.typing import ModelInfo

__all__ = ["models"]

# What is set if the user does not: somebody waits, and whichever model it is, the list is the same.
_FIELDS = {"model": "any", "retry_timeout": "5", "timeout": "30"}

_COLUMNS = {
    "name": "NAME",
    "context_length": "CONTEXT",
    "max_new_tokens": "MAX NEW",
    "created": "CREATED",
    "input_price": "INPUT $/M",
    "output_price": "OUTPUT $/M",
}


@click.command(
    "models",
    cls=Command,
    short_help="List the models of a provider",
    examples=[('List the models with "mini" in their names', "stillhouse models openai mini")],
)
@click.argument("name", shell_complete=complete_llms)
@click.argument("filter", required=False)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FIELD=VALUE",
    help="A field of the LLM, such as base_url. Repeatable.",
)
@click.option("--json", is_flag=True, help="Print JSON for machines.")
@guarded
def models(name: str, filter: str | None, assignments: tuple[str, ...], json: bool) -> None:
    """List the models that the provider of the LLM NAME offers, with FILTER in their names.

    It asks the provider. Prices are of a million tokens, in USD: the provider's own, or those of genai-prices
    if it is installed (the extra `cost`).
    """
    from stillhouse.registry import default_registry

    with usage_errors():
        llm = _make(default_registry(), name, assignments)
    offered = _listed(llm)
    found = [model for model in offered if (filter or "").lower() in model["name"].lower()]
    source = _add_prices(found, name.partition(":")[0], getattr(llm, "api_url", None))
    if json:
        print_json({"name": name, "models": found, "prices": source})
        return
    if not found:
        print_note(_nothing(offered, filter))
        return
    columns = [column for column in _COLUMNS if any(column in model for model in found)]
    rows = [[_cell(column, model.get(column)) for column in columns] for model in found]
    print_table([_COLUMNS[column] for column in columns], rows)
    if source:
        print_note(f"prices of {source}, where the provider tells none")


def _make(registry: Registry, name: str, assignments: Sequence[str]) -> LLM:
    """Create the LLM that is asked for the list. Its model may be any."""
    from stillhouse._settings.models import cannot_list
    from stillhouse.cli.settings import check_address, parse_fields
    from stillhouse.jobs.launch.llms import named, new_llm
    from stillhouse.llm import LLM

    name = registry.resolve(name)
    backend, _, model = name.partition(":")
    cls, settings = named(registry, name, None)
    if cls.list_models is LLM.list_models:  # which may need more than a model to be made
        raise cannot_list(backend)
    given = {assignment.partition("=")[0].strip() for assignment in assignments}
    given |= {"model"} if model else set()
    added = [
        f"{field}={text}"
        for field, text in _FIELDS.items()
        if field in cls.model_fields and field not in given
    ]
    fields = parse_fields(cls, backend, [*assignments, *added])
    llm = new_llm(registry, settings, fields)
    check_address(llm, fields)
    return llm


def _listed(llm: LLM) -> list[ModelInfo]:
    """Return the models by name, and nothing that cannot be printed, whoever wrote the backend."""
    from stillhouse._settings.models import add_models

    found: dict[str, ModelInfo] = {}
    add_models(found, llm.list_models())
    return [found[name] for name in sorted(found, key=lambda name: (name.lower(), name))]


def _add_prices(found: list[ModelInfo], backend: str, api_url: str | None) -> str | None:
    """Add the prices that the provider does not tell, and return where they are from."""
    from stillhouse.jobs.spending.prices import find_prices, price_of

    source = None
    for model in found:
        if "input_price" in model or "output_price" in model:
            continue
        prices = find_prices({"backend": backend, "model": model["name"], "api_url": api_url})
        price = price_of(prices) if prices else None
        if prices and price:
            model["input_price"], model["output_price"] = price
            source = prices.source
    return source


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column == "created":
        return str(value)[:10]
    return f"{value:,}" if isinstance(value, int) else f"{value:.10g}" if isinstance(value, float) else value


def _nothing(offered: list[ModelInfo], filter: str | None) -> str:
    from stillhouse._settings.models import nearest

    if not offered or not filter:
        return "the provider lists no models"
    near = nearest(filter, [model["name"] for model in offered])
    meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"no model has {filter!r} in its name{meant}"
