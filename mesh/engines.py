"""From a source that the owner named to an engine that serves it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from monai_node.mesh.config import AgentSource, ModelSource, Source, UrlSource
from monai_node.mesh.engine.base import Engine


@asynccontextmanager
async def open_engine(source: Source) -> AsyncGenerator[Engine]:
    """The engine behind a source, loaded and ready; SetupError in one sentence when it cannot be."""
    match source:
        case ModelSource():
            from monai_node.mesh.engine.llama import LlamaOptions, open_llama_engine

            options = LlamaOptions(n_ctx=source.n_ctx, n_threads=source.n_threads)
            async with open_llama_engine(source.path, source.alias, options) as engine:
                yield engine
        case UrlSource():
            from monai_node.mesh.engine.url import open_url_engine

            async with open_url_engine(
                source.url, source.model, source.alias, api_key=source.api_key
            ) as engine:
                yield engine
        case AgentSource():
            from monai_node.mesh.engine.agent import open_agent_engine

            async with open_agent_engine(source.path) as engine:
                yield engine
