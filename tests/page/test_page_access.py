"""The page for everybody: names, contrast, small screens, magnified, either colours, right to left."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from page.stage import Stage, ask

pytestmark = pytest.mark.full

OpenPage = Callable[..., Page]

# WCAG 2.2, 1.4.3: of every text on screen against what is painted behind it.
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((n) => top[n] * top[3] + under[n] * (1 - top[3]));
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]);
  };
  const light = (color) => {
    const [r, g, b] = color.map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { parentElement: element, textContent: text } = walker.currentNode;
    const isSeen = element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!text.trim() || !isSeen) continue;
    if (element.closest(".unseen, .skip, option, noscript, script")) continue;
    const under = ground(element);
    const ink = over(rgba(getComputedStyle(element).color), under);
    const [high, low] = [light(ink), light(under)].sort((one, other) => other - one);
    found.push([(high + 0.05) / (low + 0.05), text.trim().slice(0, 40), element.className]);
  }
  return found;
}"""
NAMELESS = """() => [...document.querySelectorAll(
    "button, a[href], input, select, textarea, summary, [tabindex='0'], [role=tab]")]
  .filter((one) => one.checkVisibility())
  .filter((one) => !(one.getAttribute("aria-label") || one.labels?.length || one.textContent.trim()
    || one.getAttribute("aria-labelledby") || one.tagName === "PRE"))
  .map((one) => one.outerHTML.slice(0, 120))"""
LONG = (
    "# A heading\n\nSome **bold** words, a [link](https://example.org/), `code` and $x_1$.\n\n> quoted\n\n"
    "- one\n- [x] two\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n```py\nx = 1\n```\n\n---\n\nThe end."
)


def _answered(page: Page, stage: Stage) -> None:
    """A conversation with two answers, one of several tasks with a failure, and the details of one."""
    ask(page, "Say much")
    stage.tell(LONG)
    expect(page.locator(".made-by")).to_be_visible()
    ask(page, "Name a tree, and rhyme on it")
    stage.wait_run()
    stage.plan(
        ("t1", "Name a tree", []), ("t2", "rhyme on it", ["t1"]), ("t3", "count", []), ("t4", "wait", ["t3"])
    )
    for task, name in (("t1", "anna"), ("t2", "bert")):
        stage.send(task, name)
        stage.text(task, task)
        stage.done(task, name, verdict="" if task == "t1" else "it should rhyme")
    stage.send("t3", "cleo")
    expect(page.locator(".node").nth(2)).to_have_attribute("data-state", "working")
    page.locator(".node").nth(1).click()
    expect(page.locator(".details h3")).to_have_text("Task 2")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(stage: Stage, open_page: OpenPage, scheme: Any) -> None:
    page = open_page(stage.url, color_scheme=scheme, viewport={"width": 1440, "height": 900})
    seen = page.evaluate(CONTRASTS)
    _answered(page, stage)
    page.mouse.move(0, 0)
    seen += page.evaluate(CONTRASTS)
    page.locator(".part").last.focus()
    seen += page.evaluate(CONTRASTS)
    page.get_by_role("tab", name="Mesh").click()
    page.locator(".peers summary").first.click()
    seen += page.evaluate(CONTRASTS)
    assert len(seen) > 100
    assert [entry for entry in seen if entry[0] < 4.5] == []


def test_every_control_has_a_name_and_readers_get_lists_and_a_log(page: Page, stage: Stage) -> None:
    assert page.evaluate(NAMELESS) == []
    _answered(page, stage)
    assert page.evaluate(NAMELESS) == []
    page.get_by_role("tab", name="Mesh").click()
    assert page.evaluate(NAMELESS) == []
    page.get_by_role("tab", name="Tasks").click()
    tasks = page.get_by_role("list", name="Tasks").get_by_role("button")
    expect(tasks).to_have_count(4)
    expect(tasks.nth(1)).to_have_accessible_name("Task 2 of 4: rhyme on it. done, bert. needs task 1")
    log = page.get_by_role("log", name="Conversation")
    expect(log).to_have_attribute("aria-live", "polite")
    expect(log.get_by_role("article", name="Answer")).to_have_count(2)
    expect(log.get_by_role("article", name="Answer").last).to_have_attribute("aria-busy", "true")
    expect(page.get_by_role("status")).to_have_text("Task 2 of 4 is done.")
    levels = page.locator("h1, h2, h3, h4, h5, h6").evaluate_all(
        "(all) => all.filter((one) => one.checkVisibility()).map((one) => Number(one.tagName[1]))"
    )
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels)), levels


def test_focus_goes_from_conversations_to_message_to_tasks(page: Page, stage: Stage) -> None:
    _answered(page, stage)
    page.locator("body").press("Tab")
    order: list[str] = []
    page.locator(".skip").focus()
    for _ in range(120):
        page.keyboard.press("Tab")
        place = page.evaluate(
            "document.activeElement.closest('#sidebar, #log, #composer, #panel, #main')?.id ?? 'none'"
        )
        if not order or order[-1] != place:
            order.append(place)
        if place == "none":
            break
    assert order[:5] == ["sidebar", "main", "log", "composer", "panel"]


@pytest.mark.parametrize(("width", "height"), [(360, 720), (640, 450), (820, 1100), (1920, 1080)])
def test_it_fits_any_screen(stage: Stage, open_page: OpenPage, width: int, height: int) -> None:
    """640 by 450 is a laptop's window magnified to 200 %."""
    page = open_page(stage.url, viewport={"width": width, "height": height})
    ask(page, "Say much")
    stage.tell(LONG)
    expect(page.locator(".made-by")).to_be_visible()
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    for name in ("Message", "Model", "Who may see it"):
        box = page.get_by_label(name, exact=True).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    if width > 1080:
        expect(page.locator("#panel")).to_be_visible()
        return
    page.get_by_role("button", name="Tasks and mesh").click()
    expect(page.locator(".node")).to_be_in_viewport()
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    if width <= 760:
        page.get_by_role("button", name="Conversations").click()
        expect(page.locator(".conversation")).to_be_in_viewport()
        page.locator(".conversation").click()
        expect(page.locator("#sidebar")).to_be_hidden()


def test_text_goes_the_way_its_letters_go(page: Page, stage: Stage) -> None:
    ask(page, "ما هي عاصمة فرنسا؟")
    stage.tell("عاصمة فرنسا هي **باريس**.\n\nAnd in English: Paris.")
    expect(page.locator(".made-by")).to_be_visible()
    directions = page.locator(".part p").evaluate_all(
        "(all) => all.map((one) => getComputedStyle(one).direction)"
    )
    assert directions == ["rtl", "ltr"]
    assert page.locator(".bubble").evaluate("(one) => getComputedStyle(one).direction") == "rtl"


def test_nothing_moves_for_who_wants_no_motion(page: Page, stage: Stage) -> None:
    _answered(page, stage)
    assert page.evaluate("matchMedia('(prefers-reduced-motion: reduce)').matches")
    assert page.evaluate("document.getAnimations().length") == 0
