"""Where a node's log goes: one rotating file beside its state.

Nothing that a user wrote is logged: messages name tasks, peers and errors, never texts. What others
say, such as the reason of a refusal, stays within its line. Only its owner can read a log.
"""

from __future__ import annotations

import copy
import json
import logging
import logging.handlers
import os
import stat
import traceback
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import cast

from monai_node.registry.errors import SetupError

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
_FILE_BYTES_MAX = 4 << 20
_FILES_KEPT = 3
# py-libp2p writes thousands of warnings in normal operation; ours say what matters.
_NOISY = (
    *("libp2p", "multiaddr", "zeroconf", "httpx", "httpcore", "langgraph", "uvicorn", "asyncio"),
    *("opentelemetry", "urllib3"),
)


# What the lines written on behalf of one request, run or task are about.
_context: ContextVar[Mapping[str, str]] = ContextVar("log context", default=MappingProxyType({}))


@contextmanager
def log_context(**about: str) -> Generator[None]:
    """Lines written inside, and by tasks that begin there, are about this as well."""
    token = _context.set({**_context.get(), **about})
    try:
        yield
    finally:
        _context.reset(token)


def add_to_log_context(**about: str) -> None:
    """As `log_context`, for the rest of the current task."""
    _context.set({**_context.get(), **about})


class LineFormatter(logging.Formatter):
    """One record, one line and its traceback: a peer's words can neither begin a line that looks like
    ours nor reach the terminal of whoever reads the log as control characters."""

    def format(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)
        record.exc_text = None  # another handler's, with the message
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        line = super().formatMessage(record)
        if line.isprintable():
            return line
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 - logging's name
        """Where it arose. Its message stays out: it may quote what a user wrote."""
        kind, _, trace = ei
        where = "".join(traceback.format_tb(trace))
        return f"{where}{kind.__name__ if kind is not None else 'no exception'}"


class JsonFormatter(LineFormatter):
    """One record, one JSON object in ASCII: `time` (UTC), `level`, `logger`, `message`, what the line is
    about (`run`, `task`, `peer`, `request_id`), the `facts` that it was written with, and of an exception its
    class as `error` and as `trace` where it arose."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_context.get(),
            **cast("Mapping[str, object]", getattr(record, "facts", {})),
        }
        if record.exc_info:
            kind = record.exc_info[0]
            line["error"] = kind.__name__ if kind is not None else None
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


class PrivateFileHandler(logging.handlers.RotatingFileHandler):
    """A rotating log that nobody else on this machine can read."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            with suppress(PermissionError):  # /dev/stderr and the like belong to somebody else
                os.fchmod(descriptor, 0o600)
        return os.fdopen(descriptor, "a", encoding=self.encoding, errors=self.errors)

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 - logging's name
        """Once the file is full: the library's looks at it from outside and formats every line twice, which
        takes longer than writing it."""
        stream = self.stream
        # A pipe is never full.
        return stream is not None and stream.seekable() and stream.tell() >= self.maxBytes


def open_log(path: Path, level: str, form: str = "text") -> None:
    """Send this process's log to `path`; SetupError when that cannot be written, or `level` is none of
    LEVELS or `form` none of FORMATS, which environment variables may say."""
    if form not in FORMATS:
        raise SetupError(f"{form!r} is not a log format; the formats are {', '.join(FORMATS)}")
    if level not in LEVELS:
        raise SetupError(f"{level!r} is not a log level; the levels are {', '.join(LEVELS)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = PrivateFileHandler(
            path, maxBytes=_FILE_BYTES_MAX, backupCount=_FILES_KEPT, encoding="utf-8", errors="replace"
        )
    except OSError as error:
        raise SetupError(f"the log file {path} cannot be written ({error.strerror})") from None
    as_text = LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else as_text)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("monai_node").setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
