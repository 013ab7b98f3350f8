"""`monai-node keys`: make, list and revoke the keys with which others may use this user's gateway."""

from __future__ import annotations

import argparse
import json
import re
import time
from datetime import datetime

from monai_node.mesh.cli_text import one_line
from monai_node.mesh.keys import LIMIT_MAX, NAME_CHARS_MAX, AccessKey, KeyFile, new_key
from monai_node.mesh.state import StateDir, open_state_dir, state_path
from monai_node.registry.errors import SetupError

_DAY_SECONDS = 86400
_DAYS_MAX = 36500


def run_keys(options: argparse.Namespace) -> int:
    """Run one action; no gateway needs to run, and one that does follows within a second."""
    if options.action == "create":
        return _create(options)
    if options.action == "revoke":
        key = KeyFile(open_state_dir(options.state_dir).keys_file).revoke(options.id)
        print(json.dumps({"revoked": key.id}) if options.json else f"revoked {key.id} {one_line(key.name)}")
        return 0
    keys = KeyFile(StateDir(state_path(options.state_dir)).keys_file).keys()
    if options.json:
        print(json.dumps({"keys": [shown(key) for key in keys]}, ensure_ascii=False))
    elif keys:
        print("\n".join(map(_line, keys)))
    else:
        print("there is no key yet; `monai-node keys create` makes one")
    return 0


def _create(options: argparse.Namespace) -> int:
    now = time.time()
    key, secret = new_key(
        now,
        name=_name(options.name),
        rights=sorted(set(options.right or ["chat"])),
        requests_per_minute=_limit("--rate", options.rate, "min"),
        tokens_per_day=_limit("--tokens", options.tokens, "day"),
        expires=_expiry(options.expires, now),
    )
    KeyFile(open_state_dir(options.state_dir).keys_file).add(key)
    if options.json:
        print(json.dumps({**shown(key), "key": secret}, ensure_ascii=False))
        return 0
    print(secret)
    print(_line(key), "This is the only time that the key is shown.", sep="\n")
    return 0


def shown(key: AccessKey) -> dict[str, object]:
    """What may be shown of a key."""
    return key.model_dump(mode="json", exclude={"digest"})


def _line(key: AccessKey) -> str:
    limits = [
        f"{key.requests_per_minute} requests a minute" if key.requests_per_minute else "",
        f"{key.tokens_per_day} tokens a day" if key.tokens_per_day else "",
        _until(key),
    ]
    said = ", ".join([" and ".join(key.rights), *filter(None, limits)])
    return "  ".join(filter(None, (key.id, one_line(key.name), said)))


def _until(key: AccessKey) -> str:
    if key.expires is None:
        return ""
    day = datetime.fromtimestamp(key.expires).astimezone().strftime("%Y-%m-%d %H:%M")
    return f"expired {day}" if key.is_expired(time.time()) else f"until {day}"


def _name(text: str) -> str:
    if len(text) > NAME_CHARS_MAX:
        raise SetupError(f"--name: a key's name has {NAME_CHARS_MAX} characters at most")
    return text


def _limit(option: str, text: str | None, unit: str) -> int | None:
    """The number in `60` or `60/min`."""
    if text is None:
        return None
    found = re.fullmatch(rf"(\d{{1,13}})(?:/{unit})?", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= LIMIT_MAX:
        raise SetupError(f"{option} {text}: give a whole number above 0, as in 60/{unit}")
    return int(found[1])


def _expiry(days: float | None, now: float) -> int | None:
    if days is None:
        return None
    if not 0 < days <= _DAYS_MAX:
        raise SetupError(f"--expires {days:g}: a number of days above 0 and up to {_DAYS_MAX}")
    return int(now + days * _DAY_SECONDS)
