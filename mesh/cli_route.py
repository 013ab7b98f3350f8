"""What `monai-node route` and `decisions` show: who would be asked, with every number; who was."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from monai_node.mesh.cli_text import one_line, who

_FILTERED_SHOWN = 10


def route_lines(view: dict[str, Any]) -> Iterator[str]:
    """The answer of `GET /v1/route`, for people. KeyError and TypeError when it is none."""
    chance = "" if view["none"] is None else f" (chance that none fits: {view['none']:.2f})"
    yield f"{one_line(view['decision'])}: {one_line(view['reason'])}{chance}"
    for candidate in view["data"]:
        mark = "→" if candidate["is_chosen"] else " "
        yield f"{mark} {candidate['score']:.2f}  {one_line(candidate['skill']):24} {who(candidate)}"
        for reason in candidate["reasons"]:
            yield f"          {one_line(reason)}"
        if candidate["terms"]:
            terms = [f"{one_line(name)} {value:.3g}" for name, value in candidate["terms"].items()]
            yield f"          {', '.join(terms)}"
    filtered = view["filtered"]
    for passed in filtered[:_FILTERED_SHOWN]:
        yield f"- not asked: {one_line(passed['skill'])} at {who(passed)}: {one_line(passed['reason'])}"
    if len(filtered) > _FILTERED_SHOWN:
        yield f"- and {len(filtered) - _FILTERED_SHOWN} more that would not be asked"


def decision_line(row: dict[str, Any]) -> str:
    """One attempt of `GET /v1/decisions`. KeyError, TypeError and ValueError when it is none."""
    when = datetime.fromtimestamp(row["at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    others = len(row["candidates"]) - 1
    chosen = row["candidates"][0] if row["candidates"] else {"peer_name": "", "peer": row["peer"]}
    made = one_line(row["model"] or row["skill"])
    took = "going on" if row["seconds"] is None else f"{row['seconds']:.1f} s"
    came = one_line(row["error"] or row["verdict"] or "")
    others_told = f"({others} more could have been asked)" if others > 0 else ""
    words = [when, one_line(row["run"]), one_line(row["task"]), f"{made} on {who(chosen)}, {took}"]
    return " ".join(word for word in (*words, came, others_told) if word)
