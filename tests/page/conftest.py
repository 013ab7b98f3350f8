"""The page in a real browser. Whatever it does that no page of ours may do fails the test at its end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from page.stage import WAIT_SECONDS, Stage

OpenPage = Callable[..., Page]
CHROMIUM = shutil.which("chromium")

expect.set_options(timeout=WAIT_SECONDS * 1000)


@dataclass
class Watch:
    """What a page did that no page of ours may do."""

    origin: str
    faults: list[str] = field(default_factory=list[str])

    def on_request(self, request: Request) -> None:
        if not request.url.startswith((self.origin, "blob:")):
            self.faults.append(f"asked for {request.url}")

    def on_console(self, message: ConsoleMessage) -> None:
        if (
            message.type == "error" and "status of" not in message.text
        ):  # an error status is no fault of the page
            self.faults.append(f"console: {message.text}")


# Not for the whole session: while it lasts an event loop runs in this thread, and other tests want their own.
@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    with sync_playwright() as playwright:
        # Without its own sandbox: inside a container it may have no namespaces to make one of.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Generator[OpenPage]:
    """Opens the page of a gateway in a browser that knows nothing yet."""
    watches: list[Watch] = []
    with ExitStack() as stack:

        def open_(url: str, **options: Any) -> Page:
            own: dict[str, Any] = {"reduced_motion": "reduce", **options}
            context = stack.enter_context(browser.new_context(**own))
            page = context.new_page()
            watch = Watch(url)
            watches.append(watch)
            page.on("request", watch.on_request)
            page.on("console", watch.on_console)
            page.on("pageerror", lambda error: watch.faults.append(f"threw {error}"))
            page.on("dialog", lambda dialog: dialog.accept())
            page.goto(url)
            expect(page.locator(".welcome")).to_be_visible()
            return page

        yield open_
    assert [fault for watch in watches for fault in watch.faults] == []


@pytest.fixture
def stage() -> Generator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.fixture
def page(stage: Stage, open_page: OpenPage) -> Page:
    return open_page(stage.url, viewport={"width": 1440, "height": 900})
