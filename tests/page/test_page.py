"""What a person sees and does on the chat page, in a real browser before a gateway that the test directs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.keys import new_key
from monai_node.registry.errors import NoProvider
from monai_node.registry.events import run_failed
from page.stage import Stage, ask

pytestmark = pytest.mark.full

OpenPage = Callable[..., Page]


def test_a_run_is_seen_while_it_goes_and_every_part_says_who_made_it(page: Page, stage: Stage) -> None:
    ask(page, "Name a tree, count to three, and rhyme on it")
    request = stage.wait_run()
    assert request.options.privacy == "trusted"
    stage.plan(("t1", "Name a tree", []), ("t2", "count to three", []), ("t3", "rhyme on it", ["t1"]))
    nodes = page.locator(".node")
    expect(nodes).to_have_count(3)
    expect(nodes.nth(2)).to_contain_text("waits for 1")
    stage.send("t1", "anna")
    stage.send("t2", "bert")
    expect(nodes.nth(0)).to_have_attribute("data-state", "working")
    expect(nodes.nth(0)).to_contain_text("anna")
    stage.text("t1", "An **oak**")
    stage.text("t2", "1, 2, 3", is_shown=False)
    expect(page.locator(".part strong")).to_have_text("oak")
    expect(page.locator(".strip")).to_contain_text("0 of 3 tasks done")
    stage.done("t1", "anna")
    stage.answer("t2", "1, 2, 3")
    stage.done("t2", "bert")
    stage.send("t3", "cleo")
    stage.text("t3", "no rhyme")
    stage.done("t3", "cleo", verdict="it should rhyme")
    stage.finish()
    parts = page.locator(".part")
    expect(parts).to_have_count(3)
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "false")
    expect(parts.nth(1)).to_have_attribute("aria-label", "Part made by smollm2 on bert")
    expect(page.locator(".maker")).to_have_count(3)
    expect(page.locator(".maker").nth(2)).to_contain_text("not quite right")
    parts.nth(1).hover()
    expect(nodes.nth(1)).to_have_class(re.compile("is-lit"))
    expect(nodes.nth(0)).not_to_have_class(re.compile("is-lit"))
    nodes.nth(2).hover()
    expect(parts.nth(2)).to_have_class(re.compile("is-lit"))
    parts.nth(0).click()
    details = page.locator(".details")
    expect(details).to_contain_text("anna is the quickest")
    expect(details.locator(".result")).to_have_text("An **oak**")


def test_a_task_that_is_handed_on_says_so(page: Page, stage: Stage) -> None:
    ask(page, "Name a tree")
    stage.wait_run()
    stage.plan(("t1", "Name a tree", []))
    stage.send("t1", "anna")
    stage.text("t1", "An o")
    stage.lose("t1", "anna")
    stage.send("t1", "bert")
    node = page.locator(".node")
    expect(node).to_have_attribute("data-handed", "true")
    expect(node).to_have_attribute("aria-label", re.compile("bert. handed on by another peer"))
    expect(page.locator("#status")).to_have_text("Task 1 is handed on to another peer.")
    stage.text("t1", "ak")
    stage.done("t1", "bert", attempts=2)
    stage.finish()
    expect(page.locator(".maker")).to_contain_text("handed on")
    node.click()
    expect(page.locator(".details")).to_contain_text("anna: anna was lost")


def test_a_plan_is_changed_before_it_runs(page: Page, stage: Stage) -> None:
    page.get_by_role("button", name="Plan first").click()
    ask(page, "Name a tree, then write a poem about it.")
    first = page.get_by_label("Words of task 1")
    expect(first).to_have_value("Name a tree")
    expect(page.locator(".plan")).to_contain_text("would go to smollm2 on anna")
    expect(page.locator(".node")).to_have_count(2)
    first.fill("Name a flower")
    page.get_by_role("button", name="Add a task").click()
    page.get_by_role("button", name="Run this plan").click()
    expect(page.locator(".plan .notice")).to_contain_text("Task 3 has no words")
    page.get_by_label("Words of task 3").fill("translate the poem into French")
    page.get_by_label("Task 3 is given the result of task 2").click()
    page.get_by_label("The result of task 1 stands in the answer").click()
    expect(page.locator(".node")).to_have_count(3)
    page.get_by_role("button", name="Run this plan").click()
    request = stage.wait_run()
    assert isinstance(request.options.plan, list)
    planned = [(task.text, task.depends_on) for task in request.options.plan]
    assert planned == [
        ("Name a flower", []),
        ("write a poem about it", ["t1"]),
        ("translate the poem into French", ["t2"]),
    ]
    shown = page.locator(".plan")
    expect(shown).to_have_count(0)
    stage.plan(
        ("t1", "Name a flower", []), ("t2", "write", ["t1"]), ("t3", "translate", ["t2"]), hidden=["t1"]
    )
    expect(page.locator(".links path")).to_have_count(4)  # two between tasks, two to the answer
    for task in ("t1", "t2", "t3"):
        stage.send(task, "anna")
        stage.text(task, task, is_shown=task != "t1")
        stage.done(task, "anna")
    stage.finish()
    expect(page.locator(".part")).to_have_count(2)
    assert stage.backend.accepted == [request]


def test_a_plan_that_is_given_up_gives_the_words_back(page: Page, stage: Stage) -> None:
    page.get_by_role("button", name="Plan first").click()
    ask(page, "Name a tree, then write a poem about it.")
    page.locator(".plan").get_by_role("button", name="Cancel").click()
    expect(page.get_by_label("Message", exact=True)).to_have_value("Name a tree, then write a poem about it.")
    expect(page.locator(".welcome")).to_be_visible()


def test_an_answer_is_stopped_and_the_run_with_it(page: Page, stage: Stage) -> None:
    ask(page, "Count to a million")
    stage.wait_run()
    stage.plan(("t1", "Count", []))
    stage.send("t1", "anna")
    stage.text("t1", "1, 2, 3")
    expect(page.locator(".part")).to_contain_text("1, 2, 3")
    page.keyboard.press("Escape")
    stage.wait_end()
    expect(page.locator(".answer .notice")).to_have_text("You stopped this answer.")
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_a_conversation_goes_on_is_kept_and_is_deleted(page: Page, stage: Stage) -> None:
    ask(page, "My name is Ada")
    stage.tell("Hello *Ada*")
    expect(page.locator(".answer .actions")).to_be_visible()
    ask(page, "Who am I?")
    request = stage.wait_run()
    assert [(message.role, message.content) for message in request.messages] == [
        ("user", "My name is Ada"),
        ("assistant", "Hello *Ada*"),
        ("user", "Who am I?"),
    ]
    stage.plan(("t1", "Who am I?", []))
    stage.send("t1", "bert")
    stage.text("t1", "Ada")
    stage.done("t1", "bert")
    stage.finish()
    expect(page.locator(".made-by")).to_have_count(2)
    expect(page.locator(".conversation")).to_have_count(1)
    page.reload()
    expect(page.locator(".part em")).to_have_text("Ada")
    expect(page.locator(".turn")).to_have_count(4)
    expect(page.locator(".node")).to_contain_text("bert")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".welcome")).to_be_visible()
    page.locator(".conversation").click()
    expect(page.locator(".turn")).to_have_count(4)
    page.get_by_role("button", name="Delete “My name is Ada”").click()
    expect(page.locator(".conversation")).to_have_count(0)
    page.reload()
    expect(page.locator(".welcome")).to_be_visible()


def test_a_question_is_asked_again_with_other_words(page: Page, stage: Stage) -> None:
    ask(page, "Name a tree")
    stage.tell("Oak")
    page.get_by_role("button", name="Ask again").click()
    stage.tell("Elm")
    expect(page.locator(".part")).to_have_text(re.compile("Elm"))
    page.locator(".asked").hover()
    page.get_by_role("button", name="Change your message").click()
    page.locator(".editor textarea").fill("Name a flower")
    page.keyboard.press("Enter")
    request = stage.wait_run()
    assert [message.content for message in request.messages] == ["Name a flower"]
    expect(page.locator(".bubble")).to_have_text("Name a flower")


def test_what_a_user_thinks_of_an_answer_and_of_a_part_reaches_the_gateway(page: Page, stage: Stage) -> None:
    ask(page, "Name a tree")
    stage.tell("Oak")
    page.get_by_role("button", name="Good answer").click()
    expect(page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
    page.locator(".node").click()
    page.get_by_role("button", name="This part is bad").click()
    expect(page.get_by_role("button", name="This part is bad")).to_have_attribute("aria-pressed", "true")
    assert stage.backend.ratings == [(stage.run, None, 1.0), (stage.run, "t1", 0.0)]


def test_an_error_is_one_sentence_and_can_be_tried_again(page: Page, stage: Stage) -> None:
    ask(page, "Name a tree")
    stage.wait_run()
    sentence = "no reachable peer offers a skill for this; start one with `monai-node serve model.gguf`"
    stage.say(run_failed(stage.run, NoProvider(sentence)), None)
    expect(page.get_by_role("alert").first).to_have_text(f"N{sentence[1:]}")
    page.get_by_role("button", name="Ask again").click()
    stage.tell("Oak")
    expect(page.locator(".part")).to_contain_text("Oak")


def test_where_no_peer_is_reachable_the_page_says_how_to_add_one(stage: Stage, open_page: OpenPage) -> None:
    stage.backend.reason = "no peer is reachable that offers a skill"
    stage.backend.peer_views = []
    page = open_page(stage.url)
    told = page.get_by_role("group", name="No peer is reachable")
    expect(told).to_contain_text("monai-node serve model.gguf --join")
    expect(page.locator("#health-words")).to_have_text("No peer")


def test_peers_are_listed_with_what_they_did_here(page: Page, stage: Stage) -> None:
    ask(page, "Name a tree")
    stage.tell("Oak")
    expect(page.locator(".made-by")).to_be_visible()
    page.get_by_role("tab", name="Mesh").click()
    expect(page.locator(".peers > li")).to_have_count(3)
    anna = page.locator(".peers > li").filter(has_text="anna")
    anna.locator("summary").click()
    expect(anna).to_contain_text("Here: 1 task")
    expect(anna).to_contain_text("smollm2")


def test_the_model_the_label_and_the_limits_are_the_users(page: Page, stage: Stage) -> None:
    page.get_by_label("Model").select_option("smollm2")
    page.get_by_label("Who may see it").select_option("local")
    expect(page.locator("#privacy-words")).to_contain_text("only the gateway's own node")
    page.locator("#more summary").click()
    page.get_by_label("Deadline, seconds").fill("30")
    page.get_by_label("Budget, tokens").fill("500")
    ask(page, "Name a tree")
    request = stage.wait_run()
    options = request.options
    assert request.model == "smollm2"
    assert (options.privacy, options.deadline_seconds, options.budget_tokens) == ("local", 30, 500)
    assert options.now
    stage.say(None)
    page.reload()
    expect(page.get_by_label("Who may see it")).to_have_value("local")


def test_a_gateway_with_keys_asks_for_one_and_it_lasts_as_long_as_the_tab(open_page: OpenPage) -> None:
    key, secret = new_key(0.0, rights=("chat",))
    with Stage(Access([key], requires_key=True)) as stage:
        page = open_page(stage.url)
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Access key").fill("mk-wrong")
        dialog.get_by_role("button", name="Use it").click()
        expect(dialog).to_contain_text("not known here")
        dialog.get_by_label("Access key").fill(secret)
        page.keyboard.press("Enter")
        expect(page.locator("#health-words")).to_have_text("3 peers")
        ask(page, "Name a tree")
        stage.tell("Oak")
        expect(page.locator(".part")).to_contain_text("Oak")
        assert page.evaluate("JSON.stringify(localStorage)").find(secret) < 0
        page.reload()
        expect(page.locator("#health-words")).to_have_text("3 peers")
        expect(dialog).to_be_hidden()


def test_everything_is_done_by_keyboard(page: Page, stage: Stage) -> None:
    ask(page, "Name a tree")
    stage.wait_run()
    stage.plan(("t1", "Name a tree", []), ("t2", "and another", []))
    expect(page.locator(".node")).to_have_count(2)
    page.locator(".node").first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".node").nth(1)).to_be_focused()
    expect(page.locator(".details h3")).to_have_text("Task 2")
    page.keyboard.press("m")
    expect(page.locator("#mesh")).to_be_visible()
    page.keyboard.press("g")
    expect(page.locator("#tasks")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_hidden()
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "true")  # Escape closed, and did not stop
    page.keyboard.press("t")
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.keyboard.press("/")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.type("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_hidden()
    page.keyboard.press("Escape")
    stage.wait_end()


def test_conversations_are_saved_as_files(page: Page, stage: Stage, tmp_path: Path) -> None:
    ask(page, "Name a tree")
    stage.tell("Oak")
    expect(page.locator(".conversation")).to_have_count(1)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export all").click()
    saved.value.save_as(tmp_path / "all.json")
    (conversation,) = json.loads((tmp_path / "all.json").read_text())
    assert conversation["turns"][1]["run"]["segments"] == [{"task": "t1", "text": "Oak"}]
    page.locator(".conversation").hover()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save “Name a tree” as a file").click()
    saved.value.save_as(tmp_path / "one.md")
    assert "**You:** Name a tree" in (tmp_path / "one.md").read_text()


def test_who_leaves_while_an_answer_comes_finds_the_question_again(page: Page, stage: Stage) -> None:
    ask(page, "Name a tree")
    stage.wait_run()
    stage.plan(("t1", "Name a tree", []))
    expect(page.locator(".conversation")).to_have_count(1)
    page.reload()
    stage.wait_end()
    expect(page.locator(".bubble")).to_have_text("Name a tree")
    expect(page.locator(".answer .notice")).to_have_text("You stopped this answer.")
    page.get_by_role("button", name="Ask again").click()
    stage.tell("Oak")
    expect(page.locator(".part")).to_contain_text("Oak")


def test_a_conversation_that_is_deleted_while_it_goes_on_is_gone(page: Page, stage: Stage) -> None:
    ask(page, "Name a tree")
    stage.wait_run()
    stage.plan(("t1", "Name a tree", []))
    page.locator(".conversation").hover()
    page.get_by_role("button", name="Delete “Name a tree”").click()
    stage.wait_end()
    expect(page.locator(".welcome")).to_be_visible()
    page.reload()
    expect(page.locator(".welcome")).to_be_visible()
    expect(page.locator(".conversation")).to_have_count(0)


def test_another_conversation_is_read_while_an_answer_comes(page: Page, stage: Stage) -> None:
    ask(page, "Name a tree")
    stage.tell("Oak")
    page.get_by_role("button", name="New conversation").click()
    ask(page, "Name a flower")
    stage.wait_run()
    stage.plan(("t1", "Name a flower", []))
    expect(page.locator(".node")).to_contain_text("Name a flower")
    page.locator(".conversation").filter(has_text="Name a tree").click()
    expect(page.locator(".part")).to_contain_text("Oak")
    stage.send("t1", "anna")
    stage.text("t1", "Rose")
    stage.done("t1", "anna")
    stage.finish()
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.locator(".part")).to_contain_text("Oak")
    page.locator(".conversation").filter(has_text="Name a flower").click()
    expect(page.locator(".part")).to_contain_text("Rose")


def test_what_a_user_writes_is_sent_as_it_is(page: Page, stage: Stage) -> None:
    text = "\u200fשלום\u200f *x* <b>\n\tline"
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")
    assert stage.wait_run().messages[-1].content == text.strip()
    stage.say(None)


def test_who_reads_above_is_not_dragged_to_the_end(page: Page, stage: Stage) -> None:
    ask(page, "Write much")
    stage.wait_run()
    stage.plan(("t1", "write", []))
    stage.send("t1", "anna")
    stage.text("t1", "line\n\n" * 100 + "middle\n\n")
    expect(page.get_by_text("middle")).to_be_in_viewport()
    page.locator("#scroll").evaluate("(one) => one.scrollTo(0, 100)")
    to_end = page.get_by_role("button", name="To the end")
    expect(to_end).to_be_visible()
    stage.text("t1", "line\n\n" * 50 + "last")
    expect(page.locator(".parts")).to_contain_text("last")
    assert page.locator("#scroll").evaluate("(one) => one.scrollTop") == 100
    to_end.click()
    expect(page.get_by_text("last", exact=True)).to_be_in_viewport()
    expect(to_end).to_be_hidden()
    stage.say(None)
