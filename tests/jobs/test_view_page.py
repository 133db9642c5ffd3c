"""The page of `stillhouse view` in a real browser: on a run that goes on, by keyboard, and with hostile texts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse.jobs import viewing
from stillhouse.jobs.store.database import store_path
from stillhouse.jobs.viewing.server import ViewServer

from ..axe import audit
from .viewed import echo_run, fill, note, viewed, write_jsonl

pytestmark = pytest.mark.browser


HOSTILE = "</script><img src=x onerror='window.hurt=1'> \u2028 a\u202eb \u0000 <b>bold</b>"

# The smallest contrast of a text that is shown with its background.
CONTRASTS = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest(".hidden, .skip, noscript, :disabled, [aria-disabled]")) continue;
    let behind = element;
    while (behind && (parse(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
    const pair = [light(parse(getComputedStyle(element).color)), light(parse(getComputedStyle(behind || document.body).backgroundColor))].sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < 4.5) found.push([walker.currentNode.data.trim().slice(0, 40), contrast]);
  }
  return found;
}"""

UNNAMED = """() => [...document.querySelectorAll("input, select, button, a[href], summary, progress")]
  .filter((one) => one.checkVisibility() && !(one.labels && one.labels.length) && !one.textContent.trim() && !one.ariaLabel).map((one) => one.outerHTML)"""

Open = Callable[..., Any]


@pytest.fixture
def show(browser: Any) -> Iterator[Open]:
    """Open the page of a run; whatever the browser complains about fails the test."""
    problems: list[str] = []
    asked: list[str] = []
    contexts: list[Any] = []
    servers: list[Any] = []

    def open_page(
        output: Path, place: str = "", width: int = 1440, height: int = 900, scheme: str = "light"
    ) -> Any:
        manager = viewed(output)
        server = ViewServer(manager.__enter__())
        server.__enter__()
        servers.append((server, manager))
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on(
            "console",
            lambda message: problems.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.address + place)
        page.base = server.address
        page.wait_for_selector("#place:not(:empty), #one-body section")
        return page

    yield open_page
    for context in contexts:
        context.close()
    for server, manager in servers:
        server.__exit__(None, None, None)
        manager.__exit__(None, None, None)
    assert problems == []
    assert {url.partition("//")[2].split(":")[0] for url in asked} <= {"127.0.0.1"}


def until(page: Any, condition: str) -> None:
    """Wait for a condition; `wait_for_function` is refused by the policy of the page."""
    page.evaluate(
        """(condition) => new Promise((done, failed) => {
          const ends = Date.now() + 60000;
          const look = () => {
            if (CONDITION) done();
            else if (Date.now() > ends) failed(new Error(`not in time: ${condition}; ${document.body.innerText.slice(0, 500)}`));
            else requestAnimationFrame(look);
          };
          look();
        })""".replace("CONDITION", condition),
        condition,
    )


def numbers(page: Any) -> list[int]:
    return [
        int(number)
        for number in page.eval_on_selector_all("#rows > li", "all => all.map((one) => one.dataset.row)")
    ]


def fits(page: Any) -> bool:
    width: bool = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    return width


ROWS = [
    {
        "id": 2**60 + number,
        "prompt": f"Question {number}: {'why? ' * (number % 60)}",
        "topic": f"topic {number % 3}",
    }
    for number in range(120)
]


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (900, 900), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_at_each_size_in_both_schemes(
    tmp_path: Path, show: Open, width: int, height: int, scheme: str
) -> None:
    output = echo_run(tmp_path, ROWS, num_generations=3, fields={"failure_rate": 0.1})
    page = show(output, "", width, height, scheme)
    page.wait_for_selector("#rows > li:nth-child(50) .prompts .text")
    page.click("#picked")
    page.check("#names li:nth-child(1) input")
    assert page.inner_text("#rows > li:first-child dd") == str(2**60)
    page.click("#keys summary")
    assert fits(page)
    assert page.evaluate(CONTRASTS) == []
    assert page.evaluate(UNNAMED) == []
    page.goto(f"{page.base}#row=4")
    page.wait_for_selector("#one-body section")
    assert fits(page)
    assert page.evaluate(CONTRASTS) == []


def test_answers_are_side_by_side_where_there_is_room(tmp_path: Path, show: Open) -> None:
    page = show(echo_run(tmp_path, ROWS[:3], num_generations=3))
    tops = page.eval_on_selector_all(
        "#rows > li:first-child .answers .block", "all => all.map((one) => one.getBoundingClientRect().top)"
    )
    assert len(tops) == 3
    assert len(set(tops)) == 1


def test_rows_are_browsed_by_the_keyboard_alone(tmp_path: Path, show: Open) -> None:
    page = show(echo_run(tmp_path, ROWS))
    page.wait_for_selector("#rows > li:nth-child(50)")
    focused = "document.activeElement.dataset.row"
    for key in ("j", "ArrowDown", "j", "k", "ArrowUp", "j"):
        page.keyboard.press(key)
    assert page.evaluate(focused) == "2"
    page.keyboard.press("Enter")
    page.wait_for_selector("#one-body section")
    assert page.inner_text("#one-title") == "Row 2"
    page.keyboard.press("j")
    until(page, "document.getElementById('one-title').textContent === 'Row 3'")
    page.keyboard.press("Escape")
    page.wait_for_selector("#list", state="visible")
    assert page.evaluate(focused) == "3"
    page.keyboard.press("n")
    until(page, "document.querySelector('#rows > li')?.dataset.row === '51'")
    page.keyboard.press("p")
    until(page, "document.querySelector('#rows > li')?.dataset.row === '1'")
    page.keyboard.press("/")
    until(page, "document.activeElement.id === 'text'")
    page.keyboard.type("question 11")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('place').textContent.includes('complete')")
    assert numbers(page) == [12, *range(111, 121)]


def test_filters_and_their_links(tmp_path: Path, show: Open) -> None:
    page = show(echo_run(tmp_path, ROWS, fields={"failure_rate": 0.2}))
    page.select_option("#column", "id")
    page.fill("#value", str(2**60 + 7))
    page.click("#filter button[type=submit]")
    until(page, "document.getElementById('place').textContent.includes('complete')")
    assert numbers(page) == [8]  # and none whose id is the same number as a float
    link = page.url
    page.click("#rows a")
    page.wait_for_selector("#one-body .columns a")
    assert page.inner_text("#one-body .columns dd >> nth=0").startswith(str(2**60 + 7))
    page.click("#one-body .columns a >> nth=0")
    page.wait_for_selector("#list", state="visible")
    assert numbers(page) == [8]
    page.goto(page.base)
    page.goto(link)
    until(page, "document.querySelectorAll('#rows > li').length === 1")
    assert numbers(page) == [8]
    page.click("#clear")
    until(page, "document.querySelectorAll('#rows > li').length === 50")
    page.select_option("#outcome", "kind:server")
    page.click("#filter button[type=submit]")
    until(page, "document.getElementById('place').textContent.includes('complete')")
    states = set(page.eval_on_selector_all("#rows .mark", "all => all.map((one) => one.textContent)"))
    assert states == {"failed: server"}


def test_go_to_a_row_and_back(tmp_path: Path, show: Open) -> None:
    page = show(echo_run(tmp_path, ROWS))
    page.fill("#number", "100")
    page.click("#jump button")
    until(page, "document.querySelector('#rows > li')?.dataset.row === '100'")
    page.click("#previous")
    until(page, "document.querySelector('#rows > li')?.dataset.row === '50'")
    assert numbers(page) == list(range(50, 100))


@pytest.mark.parametrize("place", ["", "#row=1"])
def test_hostile_texts_are_inert(tmp_path: Path, show: Open, place: str) -> None:
    huge = "<b>x</b>" * 2_600_000
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": HOSTILE, HOSTILE: HOSTILE}])
    result = {
        "generations": [HOSTILE, huge], "finish_reasons": [HOSTILE, HOSTILE], HOSTILE: [HOSTILE],
        "error": {"kind": HOSTILE, "message": HOSTILE},
    }  # fmt: skip
    fill(tmp_path / "out.jsonl", [(0, result)], {"model_name": HOSTILE, "num_generations": 2})
    note(tmp_path / "out.jsonl", "session 1", {"input": [str(source)]})
    note(tmp_path / "out.jsonl", "reasons", {"endings": {HOSTILE: 2}, "empty": 0})
    page = show(tmp_path / "out.jsonl", place)
    page.wait_for_selector(".block .text")
    until(page, "document.body.textContent.includes('[U+202E]')")
    text = page.inner_text("main")
    assert "<img src=x" in text
    assert "[U+202E]" in text
    assert "[U+0000]" in text
    assert "\u202e" not in page.evaluate("document.body.textContent")
    assert page.evaluate("window.hurt") is None
    assert (
        page.evaluate(
            "document.querySelectorAll('img, b:not(#progress b), iframe, script:not([src=\"page.js\"])').length"
        )
        == 0
    )
    assert "of 20,800,000 characters" in text
    assert len(page.evaluate("document.documentElement.outerHTML")) < 200_000
    assert fits(page)
    with page.expect_download() as saved:
        page.click("text=Save the whole text")
    assert Path(saved.value.path()).read_text(encoding="utf-8") == huge


def test_whole_text_opens_as_plain_text(tmp_path: Path, show: Open) -> None:
    text = f"{HOSTILE} {'word ' * 5000}"
    fill(tmp_path / "out.jsonl", [(0, {"generations": [text], "error": None})])
    page = show(tmp_path / "out.jsonl")
    with page.context.expect_page() as opened:
        page.click("text=Open the whole text")
    whole = opened.value
    whole.wait_for_load_state()
    assert whole.evaluate("document.contentType") == "text/plain"
    assert whole.evaluate("document.querySelectorAll('img').length") == 0
    assert whole.evaluate("document.body.textContent.endsWith('word word ')")


def test_columns_can_be_picked_among_300(tmp_path: Path, show: Open) -> None:
    row = {"prompt": "p"} | {f"column {number}": f"value {number}" for number in range(300)}
    page = show(echo_run(tmp_path, [row]), "", 390, 844)
    until(page, "document.getElementById('picked').textContent.includes('301')")
    page.click("#picked")
    page.fill("#named", "column 29")
    assert page.locator("#names li").count() == 11
    page.check("#names li:nth-child(2) input")
    assert page.inner_text("#rows .columns dd") == "value 290"
    assert fits(page)
    page.goto(f"{page.base}#row=1")
    page.wait_for_selector("#one-body .columns")
    assert page.locator("#one-body .columns dt").count() == 301
    assert fits(page)


@pytest.mark.parametrize("rows", [0, 1])
def test_run_of_no_row_and_of_one(tmp_path: Path, show: Open, rows: int) -> None:
    fill(tmp_path / "out.jsonl", [(0, {"generations": ["x"], "error": None})][:rows])
    page = show(tmp_path / "out.jsonl")
    assert numbers(page) == [1][:rows]
    assert page.is_visible("#none-found") == (rows == 0)
    assert "0 rows finished" in page.inner_text("#progress") or rows


def test_server_that_was_stopped_is_said(tmp_path: Path, browser: Any) -> None:
    page = browser.new_page()
    with viewed(echo_run(tmp_path, ROWS[:2])) as viewer, ViewServer(viewer) as server:
        page.goto(server.address)
        page.wait_for_selector("#rows > li:nth-child(2)")
    page.click("#rows a >> nth=0")
    page.wait_for_selector("#error", state="visible")
    assert "may have been stopped" in page.inner_text("#error")
    page.close()


GATED = """
import sys, time, stillhouse
from pathlib import Path
from stillhouse.registry import default_registry
folder = Path(sys.argv[1])

class Gated(stillhouse.LLM):
    preferred_batch_size = 1
    @property
    def model_name(self): return "gated"
    def generate(self, inputs, num_generations=1):
        outputs = []
        for input in inputs:
            number = input[-1]["content"].split()[-1]
            while not (folder / f"gate {number}").exists(): time.sleep(0.01)
            outputs.append(stillhouse.prepare_output([f"answer {number}"]))
        return outputs

default_registry().register("gated", Gated)
stillhouse.run(folder / "in.jsonl", llm=Gated(), output=folder / "out.jsonl")
"""


def test_rows_appear_while_the_run_goes_on(tmp_path: Path, show: Open) -> None:
    rows = [{"prompt": f"row {number}"} for number in range(4)]
    write_jsonl(tmp_path / "in.jsonl", rows)
    (tmp_path / "gate 0").touch()
    script = tmp_path / "run.py"
    script.write_text(GATED)
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdin=subprocess.DEVNULL)
    try:
        while not store_path(tmp_path / "out.jsonl").exists():
            assert process.poll() is None
        page = show(tmp_path / "out.jsonl")
        page.wait_for_selector("#rows > li:nth-child(1)")
        assert numbers(page) == [1]
        assert "working" in page.inner_text("#progress")
        for number in (1, 2):
            (tmp_path / f"gate {number}").touch()
            page.wait_for_selector(f"#rows > li:nth-child({number + 1})")
        assert page.inner_text("#rows > li:nth-child(3) .answers .text") == "answer 2"
        (tmp_path / "gate 3").touch()
        until(page, "document.getElementById('progress').textContent.startsWith('complete')")
        page.wait_for_selector("#rows > li:nth-child(4)")
        # The polling ends with the run.
        asked: list[str] = []
        until(page, "polling === null")
        page.on("request", lambda request: asked.append(request.url))
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert not any("progress" in url for url in asked)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_script_makes_nothing_of_texts_but_texts() -> None:
    script = (Path(viewing.__file__).parent / "page.js").read_text(encoding="utf-8")
    for name in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
        "DOMParser",
        "srcdoc",
    ):
        assert name not in script


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_page(tmp_path: Path, show: Open, scheme: str) -> None:
    output = echo_run(tmp_path, ROWS, num_generations=3, fields={"failure_rate": 0.1})
    page = show(output, scheme=scheme)
    page.wait_for_selector("#rows > li:nth-child(50) .prompts .text")
    page.click("#picked")
    page.click("#keys summary")
    assert audit(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{page.base}#row=4")
    page.wait_for_selector("#one-body section")
    assert audit(page) == []
