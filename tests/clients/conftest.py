"""What the clients are pointed at."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from clients.parrot import Gateway, open_gateway


@pytest.fixture
def gateway() -> Generator[Gateway]:
    with open_gateway() as gateway:
        yield gateway
