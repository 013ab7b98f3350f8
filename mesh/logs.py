"""Where a node's log goes: one rotating file beside its state.

Nothing that a user wrote is logged: messages name tasks, peers and errors, never texts.
"""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

from monai_node.registry.errors import SetupError

LEVELS = ("debug", "info", "warning", "error")
_FILE_BYTES_MAX = 4 << 20
_FILES_KEPT = 3
# py-libp2p writes thousands of warnings in normal operation; ours say what matters.
_NOISY = ("libp2p", "multiaddr", "zeroconf", "httpx", "httpcore", "langgraph", "uvicorn", "asyncio")


def open_log(path: Path, level: str) -> None:
    """Send this process's log to `path`; SetupError when that cannot be written or `level` is none of
    LEVELS, which an environment variable may say."""
    if level not in LEVELS:
        raise SetupError(f"{level!r} is not a log level; the levels are {', '.join(LEVELS)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=_FILE_BYTES_MAX, backupCount=_FILES_KEPT, encoding="utf-8"
        )
    except OSError as error:
        raise SetupError(f"the log file {path} cannot be written ({error.strerror})") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("monai_node").setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
