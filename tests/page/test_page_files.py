"""The files of the chat page: how they are served, what may not stand in them, and that they fit together."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.testing import ScriptedBackend

PAGE = Path(__file__).parents[2] / "mesh" / "gateway" / "page"
FILES = {
    file.name: file.read_text() for file in PAGE.iterdir() if file.suffix in (".css", ".html", ".js", ".svg")
}
SCRIPTS = {name: text for name, text in FILES.items() if name.endswith(".js")}
# What would turn text into code or markup, or lead around the transport of api.js.
FORBIDDEN = (
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "document.write",
    "createContextualFragment",
    "DOMParser",
    "srcdoc",
    "eval(",
    "new Function",
    "await import(",
    "XMLHttpRequest",
    "sendBeacon",
    "EventSource",
    ".cookie",
)


def _get(path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> httpx.Response:
    async def get() -> httpx.Response:
        app = create_app(ScriptedBackend(), access=Access(requires_key=True))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(get())


# --- how they are served ----------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["/", "/page/app.js", "/page/theme.css", "/page/favicon.svg"])
def test_a_file_comes_without_a_key_under_headers_that_let_nothing_else_in(path: str) -> None:
    answer = _get(path)
    assert answer.status_code == 200
    assert answer.text == FILES[path.rpartition("/")[2] or "index.html"]
    policy = dict(entry.split(" ", 1) for entry in answer.headers["content-security-policy"].split("; "))
    assert (
        policy["default-src"]
        == policy["base-uri"]
        == policy["form-action"]
        == policy["frame-ancestors"]
        == "'none'"
    )
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["trusted-types"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_file_that_a_browser_has_is_not_sent_again() -> None:
    first = _get("/page/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = _get("/page/app.js", {"if-none-match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert _get("/page/app.js", {"if-none-match": '"other"'}).status_code == 200


def test_only_the_pages_own_files_are_there() -> None:
    for name in ("__init__.py", "nothing.js", "..%2Fpage_routes.py", "%2e%2e/app.py"):
        answer = _get(f"/page/{name}")
        assert answer.status_code in (401, 404), name
        assert "import" not in answer.text


# --- what may not stand in them ---------------------------------------------------------------------------
@pytest.mark.parametrize("name", FILES)
def test_nothing_is_loaded_from_elsewhere(name: str) -> None:
    found = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", FILES[name])
    assert [address for address in found if address != "http://www.w3.org"] == []
    assert "@import" not in FILES[name]
    assert not re.search(r"url\(", FILES[name])


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_markup_or_code_from_text(name: str) -> None:
    assert [word for word in FORBIDDEN if word in SCRIPTS[name]] == []
    if name != "dom.js":
        assert "createElement" not in SCRIPTS[name]
    if name != "api.js":
        assert "fetch(" not in SCRIPTS[name]


# --- that they fit together -------------------------------------------------------------------------------
class _Outline(HTMLParser):
    """What a test asks of the page's skeleton."""

    VOID = frozenset({"input", "link", "meta", "br", "hr", "path", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.files: list[str] = []
        self.labelled: set[int] = set()  # places of controls inside a label

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if "label" in self.open:
            self.labelled.add(len(self.elements))
        self.elements.append((tag, found))
        self.files += [found[name] for name in ("src", "href") if found.get(name, "#")[0] != "#"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def _outline() -> _Outline:
    outline = _Outline()
    outline.feed(FILES["index.html"])
    outline.close()
    assert outline.open == []
    return outline


def test_the_skeleton_is_whole_and_holds_no_script_or_style_of_its_own() -> None:
    outline = _outline()
    ids = Counter(attrs["id"] for _, attrs in outline.elements if "id" in attrs)
    assert [name for name, count in ids.items() if count > 1] == []
    for tag, attrs in outline.elements:
        for name in ("for", "aria-labelledby", "aria-describedby", "aria-controls"):
            assert set(attrs.get(name, "").split()) <= set(ids), (tag, attrs)
        assert tag != "style"
        assert "style" not in attrs
        assert not [name for name in attrs if name.startswith("on")]
        assert tag != "script" or attrs["src"]
    assert {name.removeprefix("page/") for name in outline.files} <= set(FILES)


def test_every_control_of_the_skeleton_has_a_name() -> None:
    outline = _outline()
    named = {attrs["for"] for tag, attrs in outline.elements if tag == "label" and "for" in attrs}
    for place, (tag, attrs) in enumerate(outline.elements):
        if tag in ("input", "select", "textarea"):
            has_label = attrs.get("id") in named or place in outline.labelled
            assert has_label or attrs.get("aria-label"), attrs


def test_every_element_that_a_script_asks_for_stands_in_the_skeleton() -> None:
    ids = {attrs["id"] for _, attrs in _outline().elements if "id" in attrs}
    for name, text in SCRIPTS.items():
        assert set(re.findall(r'byId\("([^"]+)"\)', text)) <= ids, name


def test_every_module_is_there_and_used() -> None:
    imported = {found for text in SCRIPTS.values() for found in re.findall(r'from "\./([^"]+)"', text)}
    assert imported <= set(SCRIPTS)
    assert set(SCRIPTS) - imported == {"app.js", "theme.js"}


def test_every_class_that_a_style_names_is_used() -> None:
    used = FILES["index.html"] + "".join(SCRIPTS.values())
    named = {
        found
        for name in FILES
        if name.endswith(".css")
        for found in re.findall(r"\.([a-z][\w-]*)", FILES[name])
    }
    assert [found for found in sorted(named) if found not in used and not found.startswith("align-")] == []


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_what_the_pure_modules_decide() -> None:
    """`*.test.mjs` beside this file, run by Node's own runner."""
    tests = sorted(map(str, Path(__file__).parent.glob("*.test.mjs")))
    done = subprocess.run(
        ["node", "--test", *tests], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_every_script_is_javascript() -> None:
    check = (
        "const vm = require('node:vm'); const fs = require('node:fs');"
        "for (const file of process.argv.slice(1)) new vm.SourceTextModule(fs.readFileSync(file, 'utf8'));"
    )
    files = sorted(str(PAGE / name) for name in SCRIPTS)
    command = ["node", "--no-warnings", "--experimental-vm-modules", "-e", check, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
