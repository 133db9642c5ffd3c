"""Build the site: gather the pages that are written, make those that come from the code, render all.

    python docs/build.py [--conformance FOLDER]

The site is in `.site/html`. FOLDER holds what `pytest --conformance-json` wrote, for the page of the
backends. A warning, such as a link to nowhere, is an error.
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import architecture
import commands
import finish
import gallery
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = ROOT / ".site"

LINK = re.compile(r"\[(?P<text>[^\]\n]+)\]\((?P<target>(?![a-z]+:|#)[^)\s]+)\)")


def published() -> dict[str, str]:
    """The files outside of `docs` that are on the site, and the page of each."""
    pages = {
        "CHANGELOG.md": "changes.md",
        "CONTRIBUTING.md": "contributing.md",
        "RELEASING.md": "releasing.md",
        "SECURITY.md": "security.md",
    }
    for readme in sorted(ROOT.glob("plugins/*/README.md")):
        pages[readme.relative_to(ROOT).as_posix()] = f"plugins/{readme.parent.name}.md"
    return pages


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the site into .site/html.")
    parser.add_argument("--conformance", type=Path, metavar="FOLDER", default=SITE / "conformance")
    results = parser.parse_args().conformance
    pages = SITE / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(DOCS / "assets", pages / "assets")
    for linked in (*DOCS.glob("*.json"), *DOCS.glob("*.ipynb")):
        shutil.copy(linked, pages)
    for source in sorted(DOCS.rglob("*.md")):
        put(pages, source.relative_to(ROOT).as_posix(), source.relative_to(DOCS).as_posix())
    for file, page in published().items():
        put(pages, file, page)
    page = pages / "architecture.md"
    page.write_text(architecture.filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    (pages / "commands.md").write_text(commands.page(), encoding="utf-8")
    backends = gallery.written(results, pages)
    for name, text in backends.items():
        target = pages / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    own = sorted(set(backends) - {gallery.INDEX, gallery.SHARED}, key=lambda path: PurePosixPath(path).stem)
    settings = configured((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), project(), own)
    (SITE / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    command += ["--config-file", str(SITE / "mkdocs.yml")]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status == 0:
        finish.finish(SITE / "html", place_known="site_url" in settings)
    return status


def project() -> dict[str, Any]:
    """What the core's distribution says of itself."""
    with (ROOT / "core/pyproject.toml").open("rb") as file:
        found: dict[str, Any] = tomllib.load(file)["project"]
    return found


def configured(template: str, project: dict[str, Any], backends: list[str]) -> dict[str, Any]:
    """The settings of the site: those of `mkdocs.yml`, with what is known only when it is built.

    Args:
        template: the text of `mkdocs.yml`.
        project: the table of the core's distribution. Of its `urls`, `Source` is linked in the header and
            `Issues` at the foot of every page; without them there are no such links.
        backends: the paths of the pages that are about one backend each.
    """
    settings: dict[str, Any] = yaml.safe_load(template)
    settings["docs_dir"], settings["site_dir"] = "pages", "html"
    settings["site_name"] += f" {project['version']}"
    urls: dict[str, str] = project.get("urls", {})
    if "Source" in urls:
        settings["repo_url"] = urls["Source"]
    if "Documentation" in urls:
        settings["site_url"] = urls["Documentation"]
    if "Issues" in urls:
        report = f'<a href="{html.escape(urls["Issues"])}">Report a problem</a>'
        settings["copyright"] += f" · {report}"
    (section,) = (group["Backends"] for group in settings["nav"] if "Backends" in group)
    place = section.index({"Shared fields": gallery.SHARED})
    section.insert(place, {"Each backend": [{PurePosixPath(path).stem: path} for path in backends]})
    return settings


def put(pages: Path, file: str, page: str) -> None:
    """Copy a file of the repository to its page, its links to files turned into links to pages."""
    text = (ROOT / file).read_text(encoding="utf-8")
    target = pages / page
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(LINK.sub(lambda link: relinked(link, file, page), text), encoding="utf-8")


def relinked(link: re.Match[str], file: str, page: str) -> str:
    """The link as it must be on the page; its text alone where the file is not on the site."""
    path, hash, anchor = link["target"].partition("#")
    parts: list[str] = []
    for part in (*PurePosixPath(file).parent.parts, *PurePosixPath(path).parts):
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    where = "/".join(parts)
    if where.startswith("docs/"):
        found: str | None = where.removeprefix("docs/")
    else:
        found = published().get(where) or published().get(f"{where}/README.md")
    if found is None:
        return link["text"]
    up = "../" * (len(PurePosixPath(page).parts) - 1)
    return f"[{link['text']}]({up}{found}{hash}{anchor})"


if __name__ == "__main__":
    sys.exit(main())
