from __future__ import annotations

import pytest

from monai_node.registry.errors import (
    Abstained,
    ContractBroken,
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    MonaiError,
    PeerBusy,
    PeerLost,
    PeerRefused,
    PeerUnreachable,
    ProtocolViolation,
    TaskFailed,
)
from monai_node.router.outcome import value_of
from monai_node.router.verdict import Verdict

PASSED, FAILED, OPEN = Verdict("passed"), Verdict("failed", "no number"), Verdict("open")


@pytest.mark.parametrize(
    ("verdict", "error", "told"),
    [
        (PASSED, None, (1.0, "contract")),
        (FAILED, None, (0.0, "contract")),
        (FAILED, ContractBroken("no number"), (0.0, "contract")),
        (FAILED, PeerLost("gone"), (0.0, "contract")),
        (None, Abstained("not mine"), (0.0, "abstained")),
        (None, TaskFailed("broke"), (0.0, "error")),
        (None, ProtocolViolation("what?"), (0.0, "error")),
    ],
)
def test_what_tells_how_well_a_peer_does_a_task_has_a_value(
    verdict: Verdict | None, error: MonaiError | None, told: tuple[float, str]
) -> None:
    assert value_of(verdict, error) == told


@pytest.mark.parametrize(
    "error", [PeerBusy, PeerLost, PeerUnreachable, PeerRefused, DeadlineExceeded, InvalidRequest, Internal]
)
def test_health_the_caller_and_this_node_say_nothing_of_it(error: type[MonaiError]) -> None:
    assert value_of(None, error("x")) == (None, None)
    assert value_of(OPEN, None) == (None, None)
    assert value_of(None, None) == (None, None)
