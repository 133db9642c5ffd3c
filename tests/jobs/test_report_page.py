"""The page of a report in a browser: widths, contrast, keyboard, copying, and content that would do harm."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse.jobs.reporting.comparison_page import compare_runs
from stillhouse.jobs.reporting.report import report_run

from ..axe import audit

pytestmark = pytest.mark.browser


HOSTILE = (
    "</script><script>document.title='owned'</script><img src=https://example.com/x onerror=\"document.title='owned'\">"
    "</style></pre></dd></details>\u2028\u202eevil\x00{{ 7*7 }}"
)  # fmt: skip

# For each text, the least contrast that WCAG 2 AA asks for, and the contrast that it has.
CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const over = (top, below) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map((i) => top[i] * a + below[i] * (1 - a));
  };
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    const page = matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0] : [255, 255, 255];
    return layers.reverse().reduce((below, layer) => (layer.length ? over(layer, below) : below), page);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("script, svg, .hidden, [hidden]")) continue;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const needed = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const back = behind(element), front = over(parse(style.color), back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), needed, walker.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the outputs of two runs, hostile content included, and of runs of odd sizes."""
    folder = tmp_path_factory.mktemp("runs")
    dice = random.Random(1)
    rows = [
        {"prompt": f"row {number} " + "word " * dice.randrange(60), "topic": dice.choice(["a", "b", HOSTILE]),
         HOSTILE: HOSTILE, "id": 2**60 + number}
        for number in range(150)
    ]  # fmt: skip
    rows[3]["prompt"] = HOSTILE
    options: dict[str, Any] = {
        "fields": {"failure_rate": 0.2, "failure_kind": "timeout", "latency": 0.02},
        "max_new_tokens": 20, "system": HOSTILE,
    }  # fmt: skip
    _run(folder, "big.jsonl", rows, max_concurrency=4, **options)
    _run(folder, "big.jsonl", rows, max_concurrency=4, retry="timeout", **options)  # a table of two sessions
    _run(folder, "two.jsonl", rows)
    _run(folder, "none.jsonl", [])
    _run(folder, "one.jsonl", [{"prompt": "What is the capital of Peru?"}])
    _run(
        folder,
        "wide.jsonl",
        [{"prompt": f"q{n}", **{f"column_{m}": m for m in range(300)}} for n in range(30)],
    )
    return folder


def _run(folder: Path, name: str, rows: list[dict[str, Any]], **options: Any) -> None:
    source = folder / f"in-{name}"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    stillhouse.run(
        source, llm="echo", output=folder / name, show_bar=False, max_failures=0, **options
    )  # fmt: skip


def page_of(folder: Path, name: str) -> str:
    hooks = stillhouse.Registry(entry_points=()).hooks()
    if name == "compared":
        return compare_runs(str(folder / "big.jsonl"), str(folder / "two.jsonl"), hooks).as_uri()
    by = "topic" if name == "big.jsonl" else None
    return report_run(str(folder / name), hooks, by=by).as_uri()


@pytest.mark.parametrize("name", ["big.jsonl", "compared", "none.jsonl", "one.jsonl", "wide.jsonl"])
def test_a_report_fits_and_can_be_read_in_every_form(browser: Any, made: Path, name: str) -> None:
    address = page_of(made, name)
    for width, scheme, media in (
        (1440, "light", "screen"), (1440, "dark", "screen"), (900, "dark", "screen"), (390, "light", "screen"),
        (390, "dark", "screen"), (794, "dark", "print"),
    ):  # fmt: skip
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.emulate_media(media=media)
        troubles: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message, to=troubles: to.append(message.text))
        page.on("pageerror", lambda error, to=troubles: to.append(str(error)))
        page.on("request", lambda request, to=asked: to.append(request.url))
        page.goto(address)
        page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (width, scheme)
        low = [text for has, needed, text in page.evaluate(CONTRAST) if has < needed]
        assert low == [], (width, scheme, media)
        assert page.title() != "owned"
        assert page.locator("img, iframe, object, form").count() == 0
        assert page.locator("script").count() == 1
        assert asked == [address]
        assert troubles == []
        page.close()


def test_a_script_that_got_into_a_page_does_not_run(browser: Any, made: Path) -> None:
    page_of(made, "one.jsonl")
    path = made / "one.jsonl.report.html"
    text = path.read_text(encoding="utf-8")
    (made / "spoilt.html").write_text(
        text.replace("</main>", "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"></main>"),
        encoding="utf-8",
    )  # fmt: skip
    page = browser.new_page()
    page.goto((made / "spoilt.html").as_uri())
    page.wait_for_load_state()
    assert page.title() == "one.jsonl: report of the run"
    page.close()


def test_charts_give_their_values_to_the_pointer_and_to_the_keyboard(browser: Any, made: Path) -> None:
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    page.goto(page_of(made, "big.jsonl"))
    for name in ("rows", "latency"):
        figure = page.locator(f"figure#{name}")
        read, area = figure.locator(".read"), figure.locator(".area")
        titles = figure.locator(".point title").all_text_contents()
        assert len(titles) >= 3
        assert read.text_content() == ""
        area.focus()
        page.keyboard.press("ArrowRight")
        assert read.text_content() == titles[0]
        page.keyboard.press("ArrowRight")
        assert read.text_content() == titles[1]
        page.keyboard.press("End")
        assert read.text_content() == titles[-1]
        page.keyboard.press("ArrowRight")
        assert read.text_content() == titles[-1]
        page.keyboard.press("Home")
        assert read.text_content() == titles[0]
        assert figure.locator(".on").count() == 1
        page.locator("h1").click()
        assert read.text_content() == ""
        figure.scroll_into_view_if_needed()
        box = figure.locator(".point").last.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert read.text_content() == titles[-1]
    page.close()


def test_rows_are_searched_and_chosen(browser: Any, made: Path) -> None:
    page = browser.new_page()
    page.goto(page_of(made, "big.jsonl"))
    shown, search = page.locator(".sample:visible"), page.get_by_label("Search in these rows")
    all_of_them = page.locator(".sample").count()
    assert shown.count() == 12  # those at random, to begin with
    failed = page.get_by_role("button", name="failed")
    failed.focus()
    page.keyboard.press("Enter")
    assert failed.get_attribute("aria-pressed") == "true"
    assert 0 < shown.count() < all_of_them
    assert all("failed" in text for text in shown.locator("summary").all_text_contents())
    # Words are looked for in all rows, their prompts and columns included.
    number = page.locator(".sample summary").first.text_content().split()[1]
    search.fill(str(2**60 + int(number) - 1))
    assert shown.count() == 1
    assert page.get_by_role("button", name="all").get_attribute("aria-pressed") == "true"
    search.fill("nothing has these words")
    assert shown.count() == 0
    assert page.get_by_text("No row here has these words.").is_visible()
    search.fill("")
    assert shown.count() == all_of_them
    page.close()


def test_a_row_opens_with_the_keyboard(browser: Any, made: Path) -> None:
    page = browser.new_page()
    page.goto(page_of(made, "one.jsonl"))
    page.locator(".sample summary").focus()
    page.keyboard.press("Enter")
    assert page.locator(".sample dd").first.is_visible()
    assert page.locator(".sample dd").all_text_contents() == ["What is the capital of Peru?"] * 2
    page.close()


def test_the_copy_button_copies_the_command_alone(browser: Any, made: Path) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(page_of(made, "big.jsonl"))
    button = page.locator(".copied button").last
    command = page.locator(".copied pre").last.text_content()
    button.click()
    page.wait_for_function("document.querySelector('.copied:last-of-type button').textContent")
    page.wait_for_function("[...document.querySelectorAll('.copied button')].pop().textContent === 'copied'")
    assert page.evaluate("navigator.clipboard.readText()") == command
    assert command.startswith("stillhouse.run(")
    context.close()


def test_everything_to_operate_is_reached_with_the_tab_key_and_shows_its_focus(
    browser: Any, made: Path
) -> None:
    page = browser.new_page()
    page.goto(page_of(made, "big.jsonl"))
    wanted = page.evaluate(
        "[...document.querySelectorAll('button, input, summary, .area')].filter((e) => e.checkVisibility()).length"
    )
    reached: set[str] = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "(() => { const e = document.activeElement, s = getComputedStyle(e);"
            " if (e === document.body) return null;"
            " e.dataset.seen ||= String(Math.random());"
            " return [e.matches('button, input, summary, .area'), e.dataset.seen, s.outlineStyle]; })()"
        )
        if found is None:
            break
        if found[0]:
            reached.add(found[1])
            assert found[2] != "none"
    assert len(reached) == wanted
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["big.jsonl", "compared", "one.jsonl"])
def test_axe_finds_nothing_in_a_report(browser: Any, made: Path, name: str, scheme: str) -> None:
    page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
    page.goto(page_of(made, name))
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    found = audit(page)
    page.set_viewport_size({"width": 390, "height": 844})
    found += audit(page)
    page.close()
    assert found == []
