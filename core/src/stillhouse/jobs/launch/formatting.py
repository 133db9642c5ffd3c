"""What the options say of prompts and answers: the formatter, what is remembered of it, the files read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.rows import RowFormatter
from stillhouse.jobs.launch.options import Options
from stillhouse.jobs.prompts.batch_requests import BatchRequests
from stillhouse.jobs.prompts.files import form_of, names_a_file, read_text
from stillhouse.jobs.prompts.image_files import ImageFolders, folder_of
from stillhouse.jobs.prompts.images import RowImages
from stillhouse.jobs.prompts.parameters import RowParameters
from stillhouse.jobs.prompts.short_schemas import is_short_schema
from stillhouse.jobs.sources.names import names_of
from stillhouse.llm import LLM

__all__ = ["files_of", "formatting_of"]


def formatting_of(
    options: Options, llm: LLM, arguments: Mapping[str, Any]
) -> tuple[RowFormatter, dict[str, Any]]:
    """Return the formatter of some options for an LLM, and its settings.

    The settings have the content of files, not their names: the same file with another content is another
    command. An option that is not given is left out, as runs that were started before there was one have it.

    Raises:
        ConfigurationError: a file cannot be read, or a template or a schema is not valid.
    """
    template, system = options.template, options.system
    if options.template_file is not None:
        template = read_text(options.template_file, "--template-file")
    elif template is not None:
        if not template:
            raise ConfigurationError(
                "--template is empty", hint="give a text with names of columns, {{ NAME }}"
            )
        _check_text(
            template, "--template", is_name=template.startswith("@") and not any(map(str.isspace, template))
        )
    if options.system_file is not None:
        system = read_text(options.system_file, "--system-file")
    elif system is not None:
        _check_text(system, "--system")
    form = None if options.schema is None else form_of(options.schema)
    formatter = RowFormatter(
        template,
        system,
        options.raw,
        prompt_column=options.prompt_column,
        messages_column=options.messages_column,
        drop_last_assistant=options.drop_last_assistant,
        form=form,
        parameters=RowParameters(type(llm)) if options.row_params else None,
        images=_images(options, llm),
        requests=BatchRequests(llm, arguments, options.num_generations),
    )
    given = {
        "prompt_column": options.prompt_column,
        "messages_column": options.messages_column,
        "drop_last_assistant": options.drop_last_assistant or None,
        "schema": None if form is None else form["schema"],
        "row_params": options.row_params or None,
        "image_column": options.image_column,
    }
    return formatter, {
        "template": template,
        "system": system,
        "raw": options.raw,
        **{name: value for name, value in given.items() if value is not None},
    }


def files_of(options: Options) -> list[Path]:
    """Return the files other than the input that are read for a run."""
    schema = options.schema if isinstance(options.schema, (str, Path)) else None
    if is_short_schema(schema):
        schema = None
    files = (options.config, options.template_file, options.system_file, schema)
    return [Path(file) for file in files if file is not None]


def _images(options: Options, llm: LLM) -> RowImages | None:
    """Return what puts the images of rows into their inputs, if the options ask for that.

    Raises:
        ConfigurationError: the LLM reads no images, or a folder is none.
    """
    if options.images_from is None and options.image_column is None:
        return None
    if "images" not in llm.capabilities:
        raise ConfigurationError(
            f"{type(llm).__name__} reads no images",
            hint="leave out --images-from and --image-column, or choose a backend that reads them",
        )
    folders = None
    if options.images_from is not None:
        names = None if options.input is None else names_of(options.input)
        beside = [folder for name in names or () if (folder := folder_of(name)) is not None]
        folders = ImageFolders(options.images_from, beside)
    return RowImages(folders, options.image_column)


def _check_text(text: str, option: str, *, is_name: bool = False) -> None:
    """Refuse the name of a file where its text is meant.

    Raises:
        ConfigurationError: it is one.
    """
    name = text.removeprefix("@") if is_name and "{" not in text else names_a_file(text)
    if name:
        raise ConfigurationError(
            f"{option} takes the text itself, and {text!r} is the name of a file",
            hint=f"give {option}-file {name}",
        )
