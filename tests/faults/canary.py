"""Whether something a user wrote leaked into what a node keeps about itself (I5)."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

CANARY_CHARS_MIN = 12  # shorter ones occur by chance in logs full of hex
LOG_PATTERNS = ("*.log", "*.log.*", "*.jsonl")


def assert_no_text(directory: Path, canary: str, *, patterns: Sequence[str] = LOG_PATTERNS) -> list[Path]:
    """Search all log files below `directory` for `canary`, plain or in a usual encoding.

    AssertionError with the places when it is found, and when there is nothing to search, since that
    would prove nothing. Returns the files that were searched. The store is no log: it holds runs.
    """
    if len(canary) < CANARY_CHARS_MIN:
        raise ValueError(f"a canary has at least {CANARY_CHARS_MIN} characters")
    files = sorted({path for pattern in patterns for path in directory.rglob(pattern)})
    if not any(path.stat().st_size for path in files):
        raise AssertionError(f"no log of {', '.join(patterns)} below {directory} to search")
    forms = _forms_of(canary)
    places = [
        f"{path}:{number}"
        for path in files
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if any(form in line for form in forms)
    ]
    if places:
        raise AssertionError(f"the text {canary!r} leaked: {', '.join(places[:20])}")
    return files


def _forms_of(canary: str) -> set[bytes]:
    """How a text may stand in a log. In Base64 the neighbours change up to two characters at each
    end, and there are three ways to be aligned: the middle part of each is searched for."""
    raw = canary.encode()
    encoded = (base64.b64encode(b"\0" * shift + raw)[4:-4] for shift in range(3))
    return {raw, json.dumps(canary)[1:-1].encode(), quote(canary).encode(), *encoded}
