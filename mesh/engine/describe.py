"""From a model's own words to what a node announces: ModelInfo and default skills. Pure, except
that the quick digest is read from the file.

Skills claim little. A chat model answers, explains, writes and rewrites; a model whose name or tags
say code also writes programs; a model without a chat template only continues text. Nothing here
announces planning or merging: those need more than a file can say of itself.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pydantic import ValidationError

from monai_node.mesh.engine.gguf import GgufHeader, quick_id
from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.errors import SetupError

_NAME_CHARS_MAX = 128
_LANGUAGES_MAX = 64
_TAGS_MAX = 16
# What every file can do here; tools need a chat template. See `router.demand.ABILITIES`.
_FEATURES = ("json_schema", "logprobs", "logit_bias", "completion")
_CODE_WORDS = re.compile(r"(?i)(?<![a-z])(code|coder|coding|starcoder\w*|codellama)(?![a-z])")

_CHAT_EXAMPLES = (
    "What is the capital of Australia?",
    "Explain in simple words how a rainbow forms.",
    "Write a friendly email that invites a colleague to lunch.",
    "Write a short poem about the sea.",
    "Rewrite this sentence so that it sounds more polite.",
    "Summarise the following text in two sentences.",
    "Give me three ideas for a birthday present.",
    "Tell me a short story about a lost dog.",
)
_CODE_EXAMPLES = (
    "Write a Python function that reverses a string.",
    "Explain what this code does.",
    "Find the bug in this function.",
    "Write a SQL query that counts the orders of each customer.",
    "Write unit tests for this class.",
    "Convert this JavaScript to TypeScript.",
)
_COMPLETE_EXAMPLES = (
    "Continue this text: Once upon a time",
    "Complete the sentence: The best way to learn is",
    "Continue this paragraph in the same style.",
)


def alias_of(path: Path) -> str:
    """A public id for a file: its name without the suffix, foreign characters replaced."""
    name = re.sub(r"[^\w.:@+-]+", "-", path.stem, flags=re.ASCII).strip("-")
    return name[:_NAME_CHARS_MAX] or "model"


def describe(header: GgufHeader, alias: str, path: Path) -> ModelInfo:
    """What is announced of a file; SetupError when `alias` is not a possible id."""
    template = header.chat_template.encode()
    try:
        return ModelInfo(
            alias=alias,
            digest=quick_id(path),
            architecture=_clip(header.architecture),
            parameter_count=header.parameter_count,
            quantisation=header.quantisation,
            n_ctx=header.context_length,
            size_bytes=header.size_bytes,
            licence=_clip(header.licence),
            languages=[_clip(language) for language in header.languages[:_LANGUAGES_MAX]],
            template_digest=f"sha256:{hashlib.sha256(template).hexdigest()}" if template else "",
            features=[*_FEATURES, "tools"] if template else list(_FEATURES),
        )
    except ValidationError:
        raise SetupError(
            f"{alias!r} cannot be a model's alias: use letters, digits and . _ : @ / + -"
        ) from None


def skills_of(header: GgufHeader, alias: str) -> tuple[Skill, ...]:
    """The skills that a file's metadata supports; none for embedding models and parts of models."""
    if header.is_embedding or header.general_type != "model":
        return ()
    name = _clip(header.name)
    if not header.chat_template:
        return (_complete_skill(name, alias),)
    chat = chat_skill(alias, name, header.languages, header.tags)
    return (chat, _code_skill(name, alias)) if _is_for_code(header) else (chat,)


def chat_skill(alias: str, name: str, languages: tuple[str, ...] = (), tags: tuple[str, ...] = ()) -> Skill:
    """The general skill of an instruct model: it may answer whatever no narrower skill claims."""
    spoken = f" Languages: {', '.join(languages[:8])}." if languages else ""
    return Skill(
        id="chat",
        name=f"Chat with {name}"[:_NAME_CHARS_MAX],
        description="Answers questions, explains, and writes, rewrites and summarises short texts."
        + spoken[:500],
        tags=["chat", "general", "writing", *_claimed(tags)],
        examples=list(_CHAT_EXAMPLES),
        model=alias,
        is_general=True,
    )


def _code_skill(name: str, alias: str) -> Skill:
    return Skill(
        id="code",
        name=f"Code with {name}"[:_NAME_CHARS_MAX],
        description="Writes, explains and corrects programs.",
        tags=["code", "programming"],
        examples=list(_CODE_EXAMPLES),
        model=alias,
    )


def _complete_skill(name: str, alias: str) -> Skill:
    return Skill(
        id="complete",
        name=f"Complete with {name}"[:_NAME_CHARS_MAX],
        description="Continues a text; it was not trained to follow instructions.",
        tags=["completion"],
        examples=list(_COMPLETE_EXAMPLES),
        model=alias,
    )


def _is_for_code(header: GgufHeader) -> bool:
    return any(_CODE_WORDS.search(words) for words in (header.name, *header.tags))


def _claimed(tags: tuple[str, ...]) -> list[str]:
    return [_clip(tag) for tag in tags[:_TAGS_MAX] if tag.strip()]


def _clip(text: str) -> str:
    return text[:_NAME_CHARS_MAX]
