"""The site: that it is whole, that it has all there is, and how it looks on a screen and a phone."""

from __future__ import annotations

import ast
import html
import re
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
from stillhouse.registry.problems import explanation_of

from .steps import DOCS, ROOT, blocks, commands

PAGES = sorted(DOCS.rglob("*.md"))


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


def menu_names(nav: Any) -> list[str]:
    if isinstance(nav, list):
        return [name for entry in nav for name in menu_names(entry)]
    if isinstance(nav, dict):
        return [name for key, value in nav.items() for name in (key, *menu_names(value))]
    return []


def test_every_name_in_the_menu_is_there_once() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    names = [name.lower().removeprefix("the ") for name in menu_names(nav)]
    assert [name for name in names if names.count(name) > 1] == []


@pytest.mark.parametrize(
    "name",
    [
        "from-distilabel.md", "from-llm.md", "from-litellm.md", "second-pass.md", "structured-output.md",
        "cluster.md", "cutting-cost.md",
    ],
)  # fmt: skip
def test_page_of_a_task_is_in_the_menu_and_its_commands_run(name: str) -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert name in pages_in(nav)
    assert any(block.runs for block in blocks(DOCS / name))


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("backends.html", "logprobs</th>"),
        ("bulk-runs.html", 'id="resume"'),
        ("registry.html", 'id="e201"'),
        ("cutting-cost.html", 'id="price-the-run-first"'),
        ("write-a-backend.html", 'id="the-smallest-backend"'),
    ],
)
def test_home_links_to_the_page_that_answers_a_common_question(site: Path, target: str, answer: str) -> None:
    _, _, article = (site / "index.html").read_text(encoding="utf-8").partition("<article")
    assert re.search(rf'href="(\./)?{target}[#"]', article)
    assert answer in re.sub(r"<th[^>]*>", "<th>", (site / target).read_text(encoding="utf-8"))


def test_every_command_is_in_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    fragments = [page.read_text(encoding="utf-8") for page in (ROOT / "changelog.d").glob("+*.md")]
    named = {name for name in app.commands if f"`{name}`" in text}
    named |= {name for name in app.commands if any(f"`stillhouse {name}" in found for found in fragments)}
    assert sorted(set(app.commands) - named) == []


def test_length_of_the_smallest_backend_is_the_stated_one() -> None:
    page = DOCS / "write-a-backend.md"
    (stated,) = re.findall(r"A class of (\d+) lines is a backend", page.read_text(encoding="utf-8"))
    code = next(block.text for block in blocks(page) if block.language == "python")
    (found,) = (node for node in ast.parse(code).body if isinstance(node, ast.ClassDef))
    lines = code.splitlines()[found.lineno - 1 : found.end_lineno]
    assert int(stated) == len([line for line in lines if line.strip()])


def test_site_loads_nothing_from_other_hosts(site: Path) -> None:
    fetched = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
    found = [
        tag for page in site.rglob("*.html") for tag in fetched.findall(page.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_every_link_and_picture_of_the_site_leads_to_a_file(site: Path) -> None:
    """The build checks links to pages, and no others."""
    dead = []
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for target in re.findall(
            r'<(?:a|img)\b[^>]*?\b(?:href|src)="([^"#?]+)', page.read_text(encoding="utf-8")
        ):
            if not re.match(r"[a-z]+:", target) and not (page.parent / html.unescape(target)).exists():
                dead.append(f"{page.relative_to(site)}: {target}")
    assert dead == []


def test_every_code_is_explained_with_its_meaning() -> None:
    headings = re.findall(
        r"^### ([EW]\d{3}): (.+?) \{ #(\w+) \}$", (DOCS / "registry.md").read_text(encoding="utf-8"), re.M
    )
    assert {code: meaning for code, meaning, _ in headings} == CODES
    assert len(headings) == len(CODES)


def test_every_code_is_at_the_address_that_its_report_gives(site: Path) -> None:
    for code in CODES:
        page, _, anchor = explanation_of(code).rpartition("/")[2].partition("#")
        assert f'id="{anchor}"' in (site / page).read_text(encoding="utf-8"), code


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


def test_every_installed_backend_has_a_page_with_what_it_takes(site: Path) -> None:
    shared = (site / "backend-fields.html").read_text(encoding="utf-8")
    compared = (site / "backends.html").read_text(encoding="utf-8")
    for info in available_llms():
        page = (site / f"backends/{info.name}.html").read_text(encoding="utf-8")
        cls = get_llm(info.name)
        fields = [field["name"] for field in describe(cls)["fields"]]
        assert set(cls.model_fields) - set(fields) <= set(OfflineBatchMixin.model_fields), info.name
        wanted = [*fields, *cls.generation_parameters().parameters, *cls.capabilities]
        assert [name for name in wanted if f">{name}</code>" not in page] == [], info.name
        # A field that is only named here is explained on the page of shared fields.
        named = [name for name in fields if f">{name}</code></td>" not in page]
        assert [name for name in named if f">{name}</code></td>" not in shared] == [], info.name
        assert info.package in page
        assert f'href="backends/{info.name}.html"' in compared


def test_site_has_the_version_of_the_distribution_and_only_its_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(DOCS)
    import build

    template = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    bare = build.configured(template, {"version": "7.8.9"}, ["backends/echo.md"])
    assert bare["site_name"] == "Stillhouse 7.8.9"
    assert "repo_url" not in bare
    assert "http" not in bare["copyright"]
    assert {"Each backend": [{"echo": "backends/echo.md"}]} in bare["nav"][1]["Backends"]
    urls = {"Source": "https://forge.example/s", "Issues": "https://forge.example/s?a&b"}
    linked = build.configured(template, {"version": "7.8.9", "urls": urls}, [])
    assert linked["repo_url"] == "https://forge.example/s"
    assert 'href="https://forge.example/s?a&amp;b"' in linked["copyright"]


def test_pages_link_to_the_page_before_and_after(site: Path) -> None:
    text = (site / "first-run.html").read_text(encoding="utf-8")
    assert re.search(r'<a href="\./install\.html" class="md-footer__link md-footer__link--prev"', text)
    assert 'class="md-footer__link md-footer__link--next"' in text


def test_lines_of_commands_fit_the_column() -> None:
    """The column takes 80 characters at 1440 pixels; what a command prints is as long as it is."""
    long = [
        f"{page.relative_to(ROOT)}:{block.line}: {line}"
        for page in PAGES
        for block in blocks(page)
        if block.language in ("console", "bash")
        for command, _ in (commands(block.text) if block.language == "console" else [(block.text, [])])
        for line in command.splitlines()
        if len(line) > 78
    ]
    assert long == [], "break them with a backslash"
