"""The site in Chromium: every page on wide and narrow screens, in light and dark, by mouse and by keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse.registry import CODES

from ...axe import audit
from .steps import ROOT, blocks, commands

pytestmark = pytest.mark.browser

WIDTHS = (1440, 900, 390)

FITS = """() => {
    const width = document.documentElement.clientWidth;
    window.scrollTo(10000, 0);
    const scrolled = window.scrollX;
    const out = [...document.querySelectorAll('article > *')]
        .filter(element => element.getBoundingClientRect().right > width + 1)
        .map(element => element.outerHTML.slice(0, 100));
    return [scrolled, out];
}"""
"""How far the page scrolls sideways, and what reaches beyond its edge: a table may scroll, the page may not."""

CONTRAST = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const seen = new Map();
    const rgba = color => {
        if (!seen.has(color)) {
            canvas.clearRect(0, 0, 1, 1);
            canvas.fillStyle = color;
            canvas.fillRect(0, 0, 1, 1);
            const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
            seen.set(color, [r, g, b, a / 255]);
        }
        return seen.get(color);
    };
    const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
    const behind = element => {
        const layers = [];
        for (let at = element; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
        return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
    };
    const luminance = color => {
        const [r, g, b] = color.slice(0, 3).map(c => c / 255).map(
            c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = {};
    for (const element of document.body.querySelectorAll('*')) {
        const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join('');
        if (!text || element.closest('svg, script, style') || element.getAttribute('aria-hidden') === 'true'
            || element.classList.contains('headerlink')) continue;
        if (!element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
        const style = getComputedStyle(element);
        const size = parseFloat(style.fontSize), bold = parseInt(style.fontWeight) >= 700;
        const wanted = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
        const below = behind(element);
        const color = rgba(style.color);
        const [a, b] = [luminance(over(color, below)), luminance(below)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < wanted) {
            const key = `${element.tagName}.${element.className} ${style.color} on ${below.map(Math.round)}`;
            found[key] = `${ratio.toFixed(2)}: ${text.slice(0, 40)}`;
        }
    }
    return found;
}"""
"""The texts whose contrast is below what WCAG AA asks for, each kind of element once."""


FOCUS_SHOWS = """() => {
    const active = document.activeElement;
    const shown = active.classList.contains('md-option') ? active.nextElementSibling : active;
    return active === document.body || getComputedStyle(shown).outlineStyle !== 'none';
}"""
"""Whether the element with the focus is outlined; the label of a control that is hidden."""


def names(site: Path) -> list[str]:
    """Every page of the site; of those that are alike, a few."""
    found = sorted(page.relative_to(site).as_posix() for page in site.rglob("*.html"))
    alike = [name for name in found if name.startswith(("backends/", "decisions/0", "plugins/"))]
    return [name for name in found if name not in alike and name != "404.html"] + alike[::10]


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A page on a wide screen, which may use the clipboard."""
    context = browser.new_context(
        viewport={"width": 1440, "height": 900}, permissions=["clipboard-read", "clipboard-write"]
    )
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_is_readable_and_complains_of_nothing(
    browser: Any, address: str, site: Path, scheme: Any
) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda it: None if it.url.startswith((address, "data:")) else problems.append(it.url))
    for name in names(site):
        page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        page.goto(address + name)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            excess = page.evaluate(FITS)
            if excess != [0, []]:
                problems.append(f"{name} at {width}: {excess}")
            if width != 900:  # its colours are those of the others
                pale = page.evaluate(CONTRAST)
                problems += [f"{name} at {width}: {kind}: {text}" for kind, text in pale.items()]
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", light)[:3])) > 600) == (scheme == "light"), light
    context.close()
    assert problems == []


def test_copy_buttons_of_transcripts_copy_the_commands_alone(page: Any, address: str, site: Path) -> None:
    copied = 0
    for source in sorted((ROOT / ".site/pages").rglob("*.md")):
        wanted = [
            "\n".join(command for command, _ in commands(block.text))
            for block in blocks(source)
            if block.language == "console"
        ]
        if not wanted:
            continue
        page.goto(address + source.relative_to(ROOT / ".site/pages").with_suffix(".html").as_posix())
        buttons = page.locator(".highlight:has(.gp) button[data-md-type=copy]")
        buttons.first.wait_for(state="attached")
        assert buttons.count() == len(wanted), source
        for place, text in enumerate(wanted):
            page.evaluate("navigator.clipboard.writeText('nothing was copied')")
            button = buttons.nth(place)
            button.evaluate("button => button.closest('details')?.setAttribute('open', '')")
            button.click()
            page.wait_for_function(
                "navigator.clipboard.readText().then(text => text !== 'nothing was copied')"
            )
            assert page.evaluate("navigator.clipboard.readText()") == text, source
            copied += 1
    assert copied > 50


@pytest.mark.parametrize(
    ("name", "width", "selector"),
    [
        ("backends.html", 1440, ".compared .md-typeset__table, .compared .md-typeset__scrollwrap"),
        ("first-run.html", 390, "[data-copy] pre > code"),
    ],
)
def test_comparison_and_commands_are_not_cut(
    page: Any, address: str, name: str, width: int, selector: str
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(address + name)
    hidden = page.locator(selector).evaluate_all("all => all.map(it => it.scrollWidth - it.clientWidth)")
    assert hidden
    assert max(hidden) <= 0


@pytest.mark.parametrize("path", ["nope.html", "api/nope.html"])
def test_missing_page_is_whole_wherever_the_site_is_served(
    browser: Any, address: str, site: Path, path: str
) -> None:
    place = "http://docs.example/still/house/"

    def serve(route: Any) -> None:
        file = site / (route.request.url.removeprefix(place).partition("?")[0] or "index.html")
        if route.request.url.startswith(place) and file.is_file():
            route.fulfill(path=file)
        else:
            route.fulfill(path=site / "404.html", status=404)

    context = browser.new_context()
    context.route("**/*", serve)
    page = context.new_page()
    failed: list[str] = []
    page.on("response", lambda answer: failed.append(answer.url) if answer.status != 200 else None)
    page.goto(place + path)
    page.wait_for_load_state("networkidle")
    assert page.locator("h1").inner_text() == "Page not found"
    page.keyboard.press("/")
    page.keyboard.type("E201")
    result = page.locator("a:has-text('E201')").first
    result.wait_for()
    assert result.evaluate("element => element.href") == f"{place}registry.html#e201"
    page.keyboard.press("Escape")
    page.locator("a.md-logo").first.click()
    page.wait_for_url(place)
    assert failed == [place + path]
    context.close()


@pytest.mark.parametrize("code", CODES)
def test_search_for_a_code_finds_its_explanation_first(page: Any, address: str, code: str) -> None:
    page.goto(address)
    page.wait_for_load_state("networkidle")
    page.keyboard.press("/")
    page.keyboard.type(code)
    result = page.locator(f"a:has-text('{code}')").first  # Playwright looks into shadow trees
    result.wait_for()
    assert result.get_attribute("href").endswith(f"registry.html#{code.lower()}")


def test_site_is_usable_by_keyboard_alone(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_load_state("networkidle")
    page.keyboard.press("Tab")
    assert "md-skip" in page.evaluate("document.activeElement.className")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.href || document.activeElement.dataset.mdType || ''")
        )
        assert page.evaluate(FOCUS_SHOWS), page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
    assert {f"{address}install.html", f"{address}first-run.html", "copy"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, address: str, scheme: Any) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    found = []
    for name in ("index.html", "bulk-runs/index.html", "backends/index.html"):
        page.goto(address + name)
        found += [f"{name}: {problem}" for problem in audit(page)]
    context.close()
    assert found == []
