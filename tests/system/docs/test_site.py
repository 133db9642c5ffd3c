"""The site: that it is whole, that it has all there is, and how it looks on a screen and a phone."""

from __future__ import annotations

import html
import importlib.util
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse import available_llms, get_llm
from stillhouse._settings.describe import describe
from stillhouse.cli.app import app
from stillhouse.offline import OfflineBatchMixin
from stillhouse.registry import CODES
from stillhouse.registry.policy import ALLOW_VARIABLE, DENY_VARIABLE, PREFER_VARIABLE

from .steps import DOCS, ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGES = ["index.html", "architecture.html", "backends.html", "commands.html", "contract.html"]


@pytest.fixture(scope="session")
def site() -> Path:
    """The site, built as everybody builds it."""
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("pip install -r docs/requirements.txt")
    built = subprocess.run(
        [sys.executable, DOCS / "build.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return ROOT / ".site/html"


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def pages_in(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for entry in (nav.values() if isinstance(nav, dict) else nav) for page in pages_in(entry)]


def test_every_page_that_is_written_is_in_the_navigation() -> None:
    nav = pages_in(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    written = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert sorted(written - set(nav)) == []
    assert len(nav) == len(set(nav))


def test_every_page_of_the_navigation_is_built(site: Path) -> None:
    nav = pages_in(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert [page for page in nav if not (site / page).with_suffix(".html").is_file()] == []


def test_site_loads_nothing_from_other_hosts(site: Path) -> None:
    fetched = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
    found = [
        tag for page in site.rglob("*.html") for tag in fetched.findall(page.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_every_code_is_explained_with_its_meaning() -> None:
    rows = re.findall(
        r"^\| ([EW]\d{3}) \| (.+?) \|", (DOCS / "registry.md").read_text(encoding="utf-8"), re.M
    )
    assert dict(rows) == CODES
    assert len(rows) == len(CODES)


def test_every_switch_is_explained() -> None:
    text = (DOCS / "registry.md").read_text(encoding="utf-8")
    assert [
        name for name in (ALLOW_VARIABLE, DENY_VARIABLE, PREFER_VARIABLE) if f"`{name}=" not in text
    ] == []


def test_every_command_and_option_is_there(site: Path) -> None:
    text = text_of(site / "commands.html")
    wanted = [name for parameter in app.params for name in parameter.opts]
    for name, command in app.commands.items():
        wanted += [
            f"stillhouse {name}",
            *(option for item in command.params for option in item.opts if "-" in option),
        ]
    assert [name for name in wanted if name not in text] == []


def test_every_installed_backend_is_there_with_what_it_takes(site: Path) -> None:
    page = (site / "backends.html").read_text(encoding="utf-8")
    for info in available_llms():
        section = page.partition(f'<h2 id="{info.name}">')[2].partition("<h2 ")[0]
        cls = get_llm(info.name)
        fields = [field["name"] for field in describe(cls)["fields"]]
        assert set(cls.model_fields) - set(fields) <= set(OfflineBatchMixin.model_fields), info.name
        wanted = [*fields, *cls.generation_parameters().parameters, *cls.capabilities]
        assert [name for name in wanted if f"<code>{name}</code>" not in section] == [], info.name
        assert info.package in section


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["screen", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_its_screen_and_complains_of_nothing(
    address: str, size: tuple[int, int], scheme: Any
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    troubles: list[str] = []
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"{CHROMIUM} does not start: {error}")
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request", lambda it: None if it.url.startswith((address, "data:")) else troubles.append(it.url)
        )
        for name in PAGES:
            page.goto(address + name)
            page.wait_for_load_state("networkidle")
            # What is hidden beyond the edge cannot be read: a table may scroll, the page may not.
            excess = page.evaluate(
                """() => {
                    const width = document.documentElement.clientWidth;
                    window.scrollTo(10000, 0);
                    const scrolled = window.scrollX;
                    const out = [...document.querySelectorAll('article > *')]
                        .filter(element => element.getBoundingClientRect().right > width + 1)
                        .map(element => element.outerHTML.slice(0, 100));
                    return [scrolled, out];
                }"""
            )
            assert excess == [0, []], name
            light = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", light)[:3])) > 600) == (scheme == "light"), light
        browser.close()
    assert troubles == []
