"""Provider nodes whose engines follow a script: `python gateway_provider.py --state-dir D NAME…`.

Every name is a member of its own, with its own keys and libp2p host, in one process. Two models each, which
write as many words as `max_tokens` says: `instant` all at once, `paced` one every PACE_SECONDS.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from monai_node.mesh import node as nodes
from monai_node.mesh.config import NodeConfig, Source, UrlSource
from monai_node.mesh.engine.base import Engine
from monai_node.mesh.engine.scripted import ScriptedEngine
from monai_node.registry.advert import Skill
from monai_node.registry.secret import parse_join_line
from monai_node.registry.wire import TASKS_PER_PEER_MAX, TaskRequest

INSTANT, PACED = "instant", "paced"
WORD = "word "
WORDS_USUAL = 8
PACE_SECONDS = 0.25


def reply(request: TaskRequest) -> str:
    return WORD * (request.parameters.max_tokens or WORDS_USUAL)


@asynccontextmanager
async def open_scripted(source: Source) -> AsyncGenerator[Engine]:
    """What a node opens here instead of a model."""
    assert isinstance(source, UrlSource)
    is_paced = source.alias == PACED
    pause: Callable[[], object] = partial(asyncio.sleep, PACE_SECONDS if is_paced else 0)
    yield ScriptedEngine(
        reply,
        alias=source.alias,
        skills=[_paced_skill()] if is_paced else None,
        piece_chars=len(WORD),
        pause=pause,  # pyright: ignore[reportArgumentType]
        concurrency=TASKS_PER_PEER_MAX,
    )


def _paced_skill() -> Skill:
    """One that nothing but its model's name leads to."""
    return Skill(id=PACED, name=PACED, description="Writes slowly.", model=PACED)


async def serve(folder: Path, names: list[str], join: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    sources = tuple(UrlSource("", alias, alias) for alias in (INSTANT, PACED))
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                nodes.open_node(
                    NodeConfig(name, folder, sources, join=(parse_join_line(join),)), lambda _: None
                )
            )
            for name in names
        ]
        gc.freeze()
        found = {node.config.name: [node.peer_id, *node.transport.addrs] for node in opened}
        print(json.dumps({"ready": True, "line": json.dumps(found)}), flush=True)
        await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--join", required=True)
    parser.add_argument("names", nargs="+")
    options = parser.parse_args()
    nodes.open_engine = open_scripted  # the one thing here that is no real node's
    asyncio.run(serve(options.state_dir, options.names, options.join))


if __name__ == "__main__":
    main()
