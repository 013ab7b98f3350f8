"""The keys of a gateway as they change on disk, and what was used under each, kept there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.gateway.access.budgets import DayUsage
from monai_node.mesh.keys import KeyFile
from monai_node.mesh.state import explained, read_model, write_json
from monai_node.registry.errors import SetupError
from monai_node.registry.tasks import task_scope

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5  # how long a revoked key may still begin something
_KEEP_SECONDS = 5.0  # how much of what was used a crash may forget
_NO_KEY = "there is no key to use this gateway with; make one with `monai-node keys create`"


@asynccontextmanager
async def open_access(keys: Path, usage: Path, *, requires_key: bool) -> AsyncGenerator[Access]:
    """Follows the keys in one file, and keeps in the other what is used under them, while it is entered; the
    second is this gateway's alone. SetupError when one cannot be used, or when keys are required and there
    is none."""
    file = KeyFile(keys)
    known = await asyncio.to_thread(file.keys)
    if requires_key and not known:
        raise SetupError(_NO_KEY)
    access = Access(known, requires_key=requires_key, usage=await asyncio.to_thread(_read, usage))
    async with task_scope() as tasks:
        tasks.start(_follow(access, file), name="keys")
        tasks.start(_keep(access, usage), name="usage of keys")
        try:
            yield access
        finally:
            await asyncio.to_thread(_write, usage, access.usage())


async def _follow(access: Access, file: KeyFile) -> None:
    """A file that cannot be read leaves the keys as they were: it says neither that one was revoked nor that
    all were."""
    trouble = ""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            access.take_up(await asyncio.to_thread(file.keys))
            trouble = ""
        except SetupError as error:
            if error.message != trouble:
                trouble = error.message
                _log.error("keys are not followed: %s", trouble)


async def _keep(access: Access, path: Path) -> None:
    kept = access.usage()
    while True:
        await asyncio.sleep(_KEEP_SECONDS)
        usage = access.usage()
        if usage != kept:
            await asyncio.to_thread(_write, path, usage)
            kept = usage


def _read(path: Path) -> DayUsage | None:
    with explained(path):
        return read_model(path, DayUsage)


def _write(path: Path, usage: DayUsage) -> None:
    try:
        write_json(path, usage.model_dump())
    except OSError as error:
        _log.error("what keys used could not be kept: %s", error.strerror)
