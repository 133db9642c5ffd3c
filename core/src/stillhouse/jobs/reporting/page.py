"""`write_page`: writes a page of one file, in which whatever comes from elsewhere is shown and not obeyed."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.partial import PartialFile
from stillhouse.jobs.reporting.chats import inert

__all__ = ["check_page_name", "write_page"]

# What identifies a report of Stillhouse, within its first bytes.
_GENERATOR = b'<meta name="generator" content="stillhouse">'
_HEAD_BYTES = 4096

_FOLDER = Path(__file__).parent


def check_page_name(page: Path) -> None:
    """Refuse a path that is not one of a page.

    Raises:
        ConfigurationError: its name ends in something else.
    """
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigurationError(f"{page} is no name of a page", hint="give -o FILE.html")


def write_page(path: Path, template: str, facts: dict[str, Any]) -> None:
    """Write a page.

    Args:
        path: the file to write; an earlier report is replaced when the new one is whole.
        template: the name of its template.
        facts: what the template shows; texts in it may hold anything.

    Raises:
        ConfigurationError, OSError: the file cannot be written, or is not a report.
    """
    import jinja2
    import markupsafe

    _check_replaceable(path)

    def shown(value: Any) -> Any:
        return inert(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=shown,
    )
    # The page may run this script alone, whatever else gets into it: the browser knows it by its digest.
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(
        facts,
        style=markupsafe.Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),  # noqa: S704 -- our own
        script=markupsafe.Markup(script),  # noqa: S704 -- likewise
        script_digest=digest,
    )
    file = PartialFile(path)
    try:
        file.stream.write(page.encode("utf-8", "backslashreplace"))
        file.finish()
    except BaseException:
        file.abandon()
        raise


def _check_replaceable(path: Path) -> None:
    """Refuse to replace a page that is not a report."""
    if path.is_file():
        with path.open("rb") as stream:
            if _GENERATOR not in stream.read(_HEAD_BYTES):
                raise ConfigurationError(
                    f"{path} exists, and is not a report of Stillhouse",
                    hint="move it away, or give another with -o FILE.html",
                )
