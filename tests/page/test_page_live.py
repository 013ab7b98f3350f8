"""The chat page before a mesh of real processes, with the bundled model."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest
from playwright.sync_api import Page, expect

from live import LiveMesh
from page.stage import ask

pytestmark = [pytest.mark.full, pytest.mark.processes, pytest.mark.model]

OpenPage = Callable[..., Page]

WORDS = " ".join(f"w{number}" for number in range(60))
ANSWER_MS = 60_000
# Six seconds: time enough for a person, and a test, to see who tells it, and to end that.
TALE = f"""
import asyncio
from collections.abc import AsyncIterator
from monai_node.agents import Agent

agent = Agent("tale")


@agent.skill(examples=["Tell me the long tale", "Count from w0 on"])
async def tale(text: str) -> AsyncIterator[str]:
    '''Tells a long tale, word by word.'''
    for word in {WORDS!r}.replace(" ", "| ").split("|"):
        await asyncio.sleep(0.1)
        yield word
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveMesh]:
    with LiveMesh(tmp_path_factory.mktemp("page")) as mesh:
        mesh.open_gateway("up")
        yield mesh


def test_a_real_answer_has_its_graph_and_its_makers_and_goes_on(mesh: LiveMesh, open_page: OpenPage) -> None:
    page = open_page(mesh.url, viewport={"width": 1440, "height": 900})
    ask(page, "What is 37 * 49, and write a two-line poem about rivers")
    expect(page.locator(".made-by")).to_be_visible(timeout=ANSWER_MS)
    expect(page.locator(".node")).to_have_count(2)
    expect(page.locator(".node").first).to_contain_text("arithmetic")
    expect(page.locator(".part").first).to_contain_text("1813")
    expect(page.locator(".part")).to_have_count(2)
    expect(page.locator(".maker").last).to_contain_text("smollm2")
    page.get_by_role("button", name="Good answer").click()
    expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Plan first").click()
    ask(page, "What is 12 * 12?")
    expect(page.get_by_label("Words of task 1")).to_have_value("What is 12 * 12?")
    page.get_by_role("button", name="Run this plan").click()
    expect(page.locator(".made-by")).to_have_count(2, timeout=ANSWER_MS)
    expect(page.locator(".part").last).to_contain_text("144")
    page.get_by_role("tab", name="Mesh").click()
    expect(page.locator(".peers > li").filter(has_text="provider").first).to_contain_text("reachable")


def test_a_peer_that_dies_on_screen_hands_its_task_on(mesh: LiveMesh, open_page: OpenPage) -> None:
    (mesh.folder / "tale.py").write_text(TALE)
    for name in ("teller", "heir"):
        mesh.serve(name, str(mesh.folder / "tale.py")).wait_ready()
        mesh.wait_state(name, "alive", 15)
    page = open_page(mesh.url, viewport={"width": 1440, "height": 900})
    ask(page, "Tell me the long tale")
    node = page.locator(".node")
    expect(page.locator(".part")).to_contain_text("w5 ")
    first = node.locator(".who").inner_text()
    mesh.nodes[first].kill()
    expect(node).to_have_attribute("data-handed", "true")
    other = ({"teller", "heir"} - {first}).pop()
    expect(node.locator(".who")).to_have_text(other)
    expect(page.locator(".maker")).to_contain_text("handed on", timeout=ANSWER_MS)
    expect(page.locator(".part .markdown")).to_have_text(WORDS)
