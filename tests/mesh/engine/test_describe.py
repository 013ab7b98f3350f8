from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from monai_node.mesh.engine.describe import alias_of, describe, skills_of
from monai_node.mesh.engine.gguf import GgufHeader
from monai_node.registry.errors import SetupError

HEADER = GgufHeader(
    architecture="llama",
    name="Smol",
    general_type="model",
    parameter_count=134_515_008,
    quantisation="Q4_1",
    size_bytes=98_362_432,
    context_length=8192,
    embedding_length=576,
    block_count=30,
    kv_bytes_per_token=23_040,
    is_embedding=False,
    chat_template="{{ messages }}",
    licence="apache-2.0",
    languages=("en",),
    tags=(),
)


def test_a_chat_model_announces_one_general_skill_with_examples() -> None:
    (chat,) = skills_of(HEADER, "smol")
    assert (chat.id, chat.model, chat.is_general) == ("chat", "smol", True)
    assert len(chat.examples) >= 6
    assert "en" in chat.description


def test_no_model_announces_planning_or_merging() -> None:
    for header in (HEADER, replace(HEADER, name="Qwen Coder"), replace(HEADER, chat_template="")):
        for skill in skills_of(header, "smol"):
            words = f"{skill.id} {skill.name} {skill.description} {skill.tags}".lower()
            assert "plan" not in words
            assert "merg" not in words


@pytest.mark.parametrize(
    "header",
    [
        replace(HEADER, name="Qwen2.5 Coder 0.5B Instruct"),
        replace(HEADER, name="starcoder2-3b"),
        replace(HEADER, tags=("text-generation", "code")),
    ],
)
def test_a_code_model_also_announces_code(header: GgufHeader) -> None:
    assert [skill.id for skill in skills_of(header, "m")] == ["chat", "code"]


def test_words_that_only_contain_code_do_not_make_a_code_model() -> None:
    header = replace(HEADER, name="Decoder", tags=("encoder-decoder",))
    assert [skill.id for skill in skills_of(header, "m")] == ["chat"]


def test_a_base_model_only_completes() -> None:
    (skill,) = skills_of(replace(HEADER, chat_template=""), "m")
    assert (skill.id, skill.is_general) == ("complete", False)


def test_embedding_models_and_adapters_announce_nothing() -> None:
    assert skills_of(replace(HEADER, is_embedding=True), "m") == ()
    assert skills_of(replace(HEADER, general_type="adapter"), "m") == ()


def test_an_author_s_endless_claims_are_clipped(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"x")
    header = replace(
        HEADER,
        name="n" * 9999,
        licence="l" * 9999,
        languages=("x" * 999,) * 999,
        tags=("t" * 999,) * 999,
    )
    info = describe(header, "m", path)
    assert len(info.licence) == 128
    assert len(info.languages) == 64
    assert all(len(skill.tags) <= 32 for skill in skills_of(header, "m"))


def test_what_is_announced_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"x")
    info = describe(HEADER, "smol", path)
    assert info.digest.startswith("quick:")
    assert (info.parameter_count, info.quantisation) == (134_515_008, "Q4_1")
    assert info.template_digest.startswith("sha256:")
    assert describe(replace(HEADER, chat_template=""), "m", path).template_digest == ""
    with pytest.raises(SetupError, match="alias"):
        describe(HEADER, "two words", path)


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1"),
        ("my model (2).gguf", "my-model-2"),
        ("модель.gguf", "model"),
    ],
)
def test_a_file_name_becomes_a_possible_alias(name: str, alias: str) -> None:
    assert alias_of(Path("/models") / name) == alias
