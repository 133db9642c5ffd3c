"""What is done to the pages after they are rendered.

The copy button of a transcript copies its commands alone. Short code, such as an option, stays on one line.
The page for addresses that do not exist finds its style and its links wherever the site is served.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

__all__ = ["finish", "finished", "placed_anywhere"]

BLOCK = re.compile(
    r'<div class="(?P<classes>[^"]*\bhighlight\b[^"]*)">(?P<inside><pre>.*?</pre></div>)', re.S
)
PROMPT = '<span class="gp">'
PROMPTS = re.compile(rf"{PROMPT}.*?</span>", re.S)
OUTPUT = re.compile(r'<span class="go">.*?</span>\n?', re.S)
TAG = re.compile(r"<[^>]+>")
SHORT = re.compile(r"<code>(?=[^<>\n]{1,26}</code>)")


MISSING = "404.html"

NOT_FOUND = """\
<h1>Page not found</h1>
<p>There is no page at this address. Use the menu, or press <kbd>/</kbd> to search.</p>"""

BASE = """\
<script>(folders => {
  const path = location.pathname.split("/").slice(0, -1);
  if (folders.includes(path[path.length - 1])) path.pop();
  const base = document.createElement("base");
  base.href = location.origin + path.join("/") + "/MISSING";
  document.currentScript.before(base);
})(FOLDERS)</script>"""
"""Lets links begin at the folder of the site, which may be any folder of a host."""

STYLES = """\
<script>for (const link of document.querySelectorAll("link[data-at]")) link.href = link.dataset.at</script>
</head>"""
"""Loads what a browser would load before it has heard of the base."""

PROGRAM = """\
<script>{
  const config = document.getElementById("__config"), values = JSON.parse(config.textContent);
  for (const name of ["base", "search"]) values[name] = new URL("." + values[name], document.baseURI).href;
  config.textContent = JSON.stringify(values);
  const program = document.createElement("script");
  program.src = "\\1";
  document.body.append(program);
}</script>"""


def finish(folder: Path, place_known: bool) -> None:
    """Finish each page of a built site.

    Args:
        folder: the site.
        place_known: whether it was built for one address, so that links from the root of the host are right.
    """
    for page in folder.rglob("*.html"):
        page.write_text(finished(page.read_text(encoding="utf-8")), encoding="utf-8")
    missing = folder / MISSING
    text = missing.read_text(encoding="utf-8").replace("<h1>404 - Not found</h1>", NOT_FOUND, 1)
    if not place_known:
        text = placed_anywhere(text, sorted({page.parent.name for page in folder.glob("*/*.html")}))
    missing.write_text(text, encoding="utf-8")


def placed_anywhere(page: str, folders: list[str]) -> str:
    """The page for addresses that do not exist, its links relative to the folder of the site.

    A host sends this page for any address, at any depth, so a script has to find that folder.

    Args:
        page: the page as it was built, whose links begin at the root of the host.
        folders: the names of the folders that have pages; an address in one of them is not at the top.
    """
    page = re.sub(r'(<link\b[^>]*) href="/', r'\1 data-at="./', page)
    page = re.sub(r'<script src="/([^"]*)"></script>', PROGRAM, page)
    page = re.sub(r'\bhref="/(?=[\w"])', 'href="./', page)
    page = page.replace('new URL("/",location)', 'new URL("./",document.baseURI)')
    script = BASE.replace("MISSING", MISSING).replace("FOLDERS", json.dumps(folders))
    return page.replace("<head>", f"<head>\n{script}", 1).replace("</head>", STYLES, 1)


def finished(page: str) -> str:
    """The page, each transcript with the attribute `data-copy`, which the copy button prefers to the text."""
    return SHORT.sub('<code class="short">', BLOCK.sub(_with_commands, page))


def _with_commands(block: re.Match[str]) -> str:
    if PROMPT not in block["inside"]:
        return block[0]
    typed = html.unescape(TAG.sub("", PROMPTS.sub("", OUTPUT.sub("", block["inside"]))))
    commands = "\n".join(line for line in typed.splitlines() if line.strip())
    return f'<div class="{block["classes"]}" data-copy="{html.escape(commands)}">{block["inside"]}'
