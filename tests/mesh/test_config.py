from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_node.mesh.config import (
    GatewayOptions,
    NodeConfig,
    SkillWords,
    UrlSource,
    alias_of,
    listen_multiaddr,
    node_name_of,
    slug,
)
from monai_node.mesh.engine.scripted import ScriptedEngine
from monai_node.mesh.engines import as_told, in_words
from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.errors import SetupError
from monai_node.registry.wire import EXAMPLES_PER_SKILL_MAX


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("SmolLM2-135M-Instruct.Q4_1", "smollm2-135m-instruct.q4_1"),
        ("My Model (final)!", "my-model-final"),
        ("  spaced  out  ", "spaced-out"),
        ("Größe", "größe"),
        ("模型", "模型"),
        ("x²", "x"),
        ("a\x1b[31mb", "a-31mb"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", None),
        ("", None),
        ("½", None),
        ("-.-", None),
        ("a" * 200, "a" * 64),
        ("a" * 63 + ".b", "a" * 63),
    ],
)
def test_an_alias_is_made_of_what_a_name_holds_of_letters_and_digits(name: str, alias: str | None) -> None:
    if alias is None:
        with pytest.raises(SetupError, match="give it a --name"):
            alias_of(name)
        with pytest.raises(SetupError, match="give it a --node-name"):
            node_name_of(name)
    else:
        assert alias_of(name) == node_name_of(name) == alias


def test_no_model_may_be_called_mesh_but_a_node_may() -> None:
    with pytest.raises(SetupError, match="names the whole mesh"):
        alias_of("Mesh")
    assert node_name_of("Mesh") == "mesh"


@given(st.text(max_size=90))
def test_every_alias_is_an_id_that_peers_accept_and_a_name_of_one_folder(name: str) -> None:
    try:
        alias = alias_of(name)
    except SetupError:
        return
    assert ModelInfo(alias=alias).alias == alias
    assert Path(alias).name == alias
    assert not alias.startswith((".", "-"))
    assert alias_of(alias) == alias


@given(st.text(max_size=90))
def test_every_slug_is_empty_or_an_id_that_peers_accept(text: str) -> None:
    found = slug(text)
    if found:
        assert Skill(id=found, name="", description="").id == found


# --- --listen -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "multiaddr"),
    [
        ("127.0.0.1", "/ip4/127.0.0.1/tcp/0"),
        ("127.0.0.1:0", "/ip4/127.0.0.1/tcp/0"),
        ("0.0.0.0:4001", "/ip4/0.0.0.0/tcp/4001"),
        ("192.0.2.7:65535", "/ip4/192.0.2.7/tcp/65535"),
        ("::1", "/ip6/::1/tcp/0"),
        ("::", "/ip6/::/tcp/0"),
        ("2001:db8::7", "/ip6/2001:db8::7/tcp/0"),
        ("[::1]", "/ip6/::1/tcp/0"),
        ("[::1]:4001", "/ip6/::1/tcp/4001"),
        ("/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/tcp/4001"),
    ],
)
def test_what_may_follow_listen(text: str, multiaddr: str) -> None:
    assert listen_multiaddr(text) == multiaddr


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":4001",
        "4001",
        "localhost",
        "localhost:4001",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:-1",
        "127.0.0.1:+1",
        "127.0.0.1:4_0",
        "127.0.0.1:٤",
        "127.0.0.1:65536",
        "127.0.0.1:4001:1",
        "127.0.0",
        "256.0.0.1",
        "[::1]:x",
        "[::1]:65536",
        "[::1",
        "127.0.0.1/8",
        " 127.0.0.1",
        "http://127.0.0.1:4001",
    ],
)
def test_what_may_not_follow_listen_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(SetupError, match="--listen") as refused:
        listen_multiaddr(text)
    assert "\n" not in refused.value.message


# --- roles, and the owner's words for a skill -----------------------------------------------------
def test_a_node_with_a_gateway_is_one() -> None:
    assert NodeConfig("a", None).role == "provider"
    assert NodeConfig("a", None, gateway=GatewayOptions()).role == "gateway"


def test_an_owners_skills_stand_in_place_of_the_files_own() -> None:
    words = (
        SkillWords("Translates English into German", ("Translate: good morning",)),
        SkillWords("Übersetzt ins Englische"),
    )
    engine = in_words(ScriptedEngine("x"), words)
    first, second = engine.card.skills
    assert first.id == "translates-english-into-german"
    assert first.description == "Translates English into German"
    assert first.examples == ["Translate: good morning"]
    assert second.id == "übersetzt-ins-englische"
    assert (first.model, second.model) == ("scripted", "scripted")
    assert not first.is_general, "its owner says what it is for"


def test_an_example_without_a_skill_is_added_to_the_files_own() -> None:
    plain = ScriptedEngine("x")
    (skill,) = in_words(plain, (SkillWords(examples=("What is a fjord?",)),)).card.skills
    assert skill.examples[0] == "What is a fjord?"
    assert skill.examples[1:] == plain.card.skills[0].examples[: EXAMPLES_PER_SKILL_MAX - 1]
    assert skill.is_general


def test_a_model_whose_owner_offers_it_for_planning_says_so() -> None:
    plain = ScriptedEngine("x")
    words = (SkillWords("Writes poems"),)
    told = as_told(plain, UrlSource("http://x/v1", "m", "m", words=words, may_plan=True)).card
    assert told.model is not None
    assert plain.card.model is not None
    assert told.model.features == [*plain.card.model.features, "planner"]
    assert [skill.id for skill in told.skills] == ["writes-poems"]
    assert as_told(plain, UrlSource("http://x/v1", "m", "m")).card == plain.card


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((SkillWords("x" * 2001),), "description"),
        ((SkillWords("short", ("x" * 2001,)),), "examples"),
        ((SkillWords("", ("x" * 2001,)),), "examples"),
        ((SkillWords("Writes poems"), SkillWords("writes, poems!")), "begin alike"),
        ((SkillWords("²"), SkillWords("³")), "begin alike"),
    ],
)
def test_words_that_peers_would_refuse_are_refused_here(words: tuple[SkillWords, ...], sentence: str) -> None:
    """A peer that finds one field too long refuses the whole advert: the node would be alone."""
    with pytest.raises(SetupError, match=sentence):
        in_words(ScriptedEngine("x"), words)
