"""From a source that the owner named to an engine that serves it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from pydantic import ValidationError

from monai_node.mesh.config import AgentSource, ModelSource, SkillWords, Source, UrlSource, slug
from monai_node.mesh.engine.base import Engine, EngineCard
from monai_node.registry.advert import Skill
from monai_node.registry.errors import SetupError
from monai_node.registry.wire import EXAMPLES_PER_SKILL_MAX, TaskCompleted, TaskDelta, TaskRequest
from monai_node.router.planners import PLANNER_FEATURE


@asynccontextmanager
async def open_engine(source: Source) -> AsyncGenerator[Engine]:
    """The engine behind a source, loaded and ready; SetupError in one sentence when it cannot be."""
    match source:
        case ModelSource():
            from monai_node.mesh.engine.llama import LlamaOptions, open_llama_engine

            options = LlamaOptions(n_ctx=source.n_ctx, n_threads=source.n_threads)
            async with open_llama_engine(source.path, source.alias, options) as engine:
                yield as_told(engine, source)
        case UrlSource():
            from monai_node.mesh.engine.url import open_url_engine

            async with open_url_engine(
                source.url, source.model, source.alias, api_key=source.api_key
            ) as engine:
                yield as_told(engine, source)
        case AgentSource():
            from monai_node.mesh.engine.agent import open_agent_engine

            async with open_agent_engine(source.path) as engine:
                yield _priced(engine, source.price)


def as_told(engine: Engine, source: ModelSource | UrlSource) -> Engine:
    """`engine` announcing what its owner says of it; SetupError as in `in_words`."""
    described = _priced(in_words(engine, source.words), source.price)
    return _Offered(described) if source.may_plan else described


def _priced(engine: Engine, price: float) -> Engine:
    return _Priced(engine, price) if price else engine


def in_words(engine: Engine, words: tuple[SkillWords, ...]) -> Engine:
    """`engine` announcing the skills that its owner described instead of those of its file.

    SetupError when a description is too long to be announced, or two cannot be told apart.
    """
    if not words:
        return engine
    skills = tuple(_described(engine.card.skills[0], spoken) for spoken in words)
    ids = [skill.id for skill in skills]
    if len(set(ids)) < len(ids):
        raise SetupError("two --skill descriptions begin alike; let their first words differ")
    return _Described(engine, skills)


def _described(own: Skill, words: SkillWords) -> Skill:
    if not words.description:
        examples = [*words.examples, *own.examples][:EXAMPLES_PER_SKILL_MAX]
        return _checked(own.model_dump() | {"examples": examples})
    told = {
        "id": slug(words.description) or "skill",
        "name": words.description[:64],
        "description": words.description,
        "examples": list(words.examples)[:EXAMPLES_PER_SKILL_MAX],
        # Its owner says what it is for; it does not take whatever nobody else claims.
        "is_general": False,
    }
    return _checked(own.model_dump() | told)


def _checked(skill: Mapping[str, object]) -> Skill:
    """A skill as peers will read it: they refuse the whole advert if one of its fields is too long."""
    try:
        return Skill.model_validate(skill)
    except ValidationError as error:
        where = str(error.errors()[0]["loc"][0])
        raise SetupError(f"the {where} of a --skill cannot be announced; make it shorter") from None


class _Wrapped:
    """An engine of which something else is announced."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def submit(self, request: TaskRequest) -> AsyncGenerator[TaskDelta | TaskCompleted]:
        return self.engine.submit(request)


class _Described(_Wrapped):
    """Announces other skills."""

    def __init__(self, engine: Engine, skills: tuple[Skill, ...]) -> None:
        super().__init__(engine)
        self._skills = skills

    @property
    def card(self) -> EngineCard:
        return replace(self.engine.card, skills=self._skills)


class _Priced(_Wrapped):
    """Announces what its results cost."""

    def __init__(self, engine: Engine, price: float) -> None:
        super().__init__(engine)
        self._price = price

    @property
    def card(self) -> EngineCard:
        card = self.engine.card
        return replace(card, skills=tuple(it.model_copy(update={"price": self._price}) for it in card.skills))


class _Offered(_Wrapped):
    """Announces that its model may plan."""

    @property
    def card(self) -> EngineCard:
        card = self.engine.card
        if card.model is None:
            return card
        features = [*card.model.features, PLANNER_FEATURE]
        return replace(card, model=card.model.model_copy(update={"features": features}))


def _innermost(engine: Engine) -> Engine:
    while isinstance(engine, _Wrapped):
        engine = engine.engine
    return engine


async def learn_digests(served: Sequence[tuple[Source, Engine]], learnt: Callable[[], None]) -> None:
    """Hash every model file in full, one after the other and off the loop, and tell its engine.

    Until then a model is announced by its sampled digest, which is quick to compute and to forge.
    """
    from monai_node.mesh.engine.gguf import sha256_of
    from monai_node.mesh.engine.llama import LlamaEngine

    is_cancelled = threading.Event()
    try:
        for source, engine in served:
            own = _innermost(engine)
            if isinstance(source, ModelSource) and isinstance(own, LlamaEngine):
                own.learn_digest(await asyncio.to_thread(sha256_of, source.path, is_cancelled.is_set))
                learnt()
    finally:
        is_cancelled.set()
