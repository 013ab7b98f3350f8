"""How many runs go on here at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from monai_node.mesh.gateway.errors import TooManyRuns


class RunGate:
    """Counts runs in flight, and turns away what is too many."""

    def __init__(self, runs_max: int) -> None:
        self._runs_max = runs_max
        self.running_count = 0

    @asynccontextmanager
    async def admit(self) -> AsyncGenerator[None]:
        """Holds one place; TooManyRuns when there is none."""
        if self.running_count >= self._runs_max:
            raise TooManyRuns(f"{self._runs_max} requests are in flight here; try again shortly")
        self.running_count += 1
        try:
            yield
        finally:
            self.running_count -= 1
