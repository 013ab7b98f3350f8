"""What `monai-node route` shows: who would be asked, with every number, and who would not."""

from __future__ import annotations

from collections.abc import Iterator
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
