"""How a run came to its answer, for whoever sees only headers: who has each task, and what took how long."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from monai_node.registry.events import AnswerDelta, PlanTask, Provenance, RunEvent, TaskDispatched, TaskText
from monai_node.registry.ids import PeerId, short

_VALUE_CHARS_MAX = 1024  # of a header: many proxies give up on a head of 8 KiB
_NAME_CHARS_MAX = 128


class Trail:
    """Told of every event of one run as it arrives; times in seconds of one clock, from `started`."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._holders: dict[str, str] = {}
        self._marks: dict[str, float] = {}

    def note(self, event: RunEvent, now: float) -> None:
        match event:
            case PlanTask():
                self._marks["plan"] = now  # the last one of the plan
            case TaskDispatched():
                self._marks.setdefault("route", now)
                self._holders[event.task] = f"{event.skill[:_NAME_CHARS_MAX]}@{short(PeerId(event.peer))}"
            case TaskText(text=text) | AnswerDelta(text=text) if text:
                self._marks.setdefault("first", now)
            case _:
                pass

    def headers(self, now: float | None = None) -> dict[str, str]:
        """`x-mesh-route` (`task=skill@peer`, each task with the peer that had it last) and `server-timing` in
        milliseconds: `plan` until the plan was there, `route` from there until a first task was sent, `first`
        until the first text, and with `now`, when the run is over, `run`. Plain ASCII."""
        timing = [f"{name};dur={seconds * 1000:.1f}" for name, seconds in self._durations(now)]
        found = {"x-mesh-route": self._route(), "server-timing": ", ".join(timing)}
        return {name: value for name, value in found.items() if value}

    def _durations(self, now: float | None) -> list[tuple[str, float]]:
        marks, start = self._marks, self._started
        spans = {
            "plan": (start, marks.get("plan")),
            "route": (marks.get("plan", start), marks.get("route")),
            "first": (start, marks.get("first")),
            "run": (start, now),
        }
        return [(name, end - begin) for name, (begin, end) in spans.items() if end is not None]

    def _route(self) -> str:
        """Whole entries only, while there is room."""
        line = ""
        for task, holder in self._holders.items():
            entry = f"{task}={_escaped(holder)}"
            if len(line) + len(entry) + 2 > _VALUE_CHARS_MAX:
                break
            line += f", {entry}" if line else entry
        return line


def maker_headers(parts: Sequence[Provenance]) -> dict[str, str]:
    """Who made an answer: how many parts it has, and the models that made them. Plain ASCII."""
    makers = dict.fromkeys(_escaped(f"{part.model}@{part.peer_name or part.peer}"[:256]) for part in parts)
    return {
        "x-mesh-parts": str(len(parts)),
        "x-mesh-models": ",".join(makers)[:_VALUE_CHARS_MAX],
    }


def _escaped(name: str) -> str:
    """Peers choose the names of themselves, their skills and models: nothing may end a header or an entry."""
    return quote(name, safe="@/:.+")
