"""The provider process beside a gateway: what its end means for `up`."""

from __future__ import annotations

import asyncio
import gc
import json
import sys

import pytest

from monai_node.mesh.cli_node import Console
from monai_node.mesh.companion import Companion
from monai_node.registry.errors import SetupError
from monai_node.registry.tasks import task_scope

SECONDS = 20.0  # four starts of Python and the pauses between them take two
ENDS_WHEN_READY = [sys.executable, "-c", "print('{}')"]


def test_a_provider_that_keeps_ending_is_started_again_and_never_ends_the_gateway(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("monai_node.mesh.companion._PAUSE_SECONDS_MAX", 0.01)
    ends = 0
    has_ended_often = asyncio.Event()

    def say(line: str) -> None:
        nonlocal ends
        ends += "starting it again" in line
        if ends == 4:
            has_ended_often.set()

    async def test() -> None:
        is_up = asyncio.Event()
        async with asyncio.timeout(SECONDS), task_scope() as scope:
            scope.start(Companion(ENDS_WHEN_READY, "", say).run(is_up), name="provider process")
            await has_ended_often.wait()
        assert is_up.is_set()

    asyncio.run(test())


def test_a_provider_that_never_ran_is_an_error_of_the_start() -> None:
    async def test() -> None:
        companion = Companion([sys.executable, "-c", "raise SystemExit(3)"], "", lambda _: None)
        with pytest.raises(SetupError, match="status 3"):
            await companion.run(asyncio.Event())

    asyncio.run(test())


def test_what_was_loaded_before_a_node_is_ready_is_not_collected_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert gc.get_freeze_count() == 0
    try:
        Console(is_json=True).ready([], {"peer": "p"})
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
    assert json.loads(capsys.readouterr().out) == {"ready": True, "peer": "p"}
