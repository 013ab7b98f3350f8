"""Opening a SQLite file of the state directory: its mode, its schema, and what happens to a damaged one.

Everything here blocks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Generator, Sequence
from pathlib import Path

from monai_node.mesh.state import explained, set_aside
from monai_node.registry.errors import SetupError

_log = logging.getLogger(__name__)

# That one statement waits for another process that has the file.
BUSY_SECONDS = 5.0

# The statements that lead from one version of a schema to the next.
Migration = Sequence[str]

# What SQLite says of a file that is damaged, or is none of its own.
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def connect(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    """The database in `path`, brought to the version that `migrations` end with; a damaged one is kept aside
    and a new one begun. Waits for BUSY_SECONDS or a little more. SetupError when it cannot be used."""
    with explained(path):
        try:
            try:
                return _opened(path, migrations)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
            keep_aside(path)
            return _opened(path, migrations)
        except sqlite3.Error as error:
            raise SetupError(
                f"{path} cannot be used ({error}); choose a writable directory with --state-dir"
            ) from None


def keep_aside(path: Path) -> None:
    """Keep a damaged file under another name, with its companions."""
    kept = set_aside(path)
    for companion in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + companion).replace(kept.with_name(kept.name + companion))
    _log.warning("%s was damaged; it is set aside as %s, and a new one is begun", path.name, kept.name)


def _opened(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    # By ourselves, for its mode, which SQLite gives the companions too.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
    _refuse_newer(path, len(migrations))
    # Transactions are begun and ended here, never by the module on its own. Used by one thread alone.
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        for version, statements in enumerate(migrations, start=1):
            with transaction(connection):
                if _version(connection) < version:
                    for statement in statements:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {version}")
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_newer(path: Path, known: int) -> None:
    """Before anything is written: opening for writing already changes a file that was not closed well."""
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
        version = _version(connection)
    if version > known:
        raise SetupError(
            f"{path} was written by a newer monai-node (schema {version}, this one knows {known}); "
            "upgrade, or give another --state-dir"
        )


def _version(connection: sqlite3.Connection) -> int:
    row: tuple[int] = connection.execute("PRAGMA user_version").fetchone()
    return row[0]


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """All or nothing of what is done within."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # of a damaged file, not even that can be done
            connection.execute("ROLLBACK")
        raise


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault."""
    code = getattr(error, "sqlite_errorcode", None)  # absent where the module itself complains
    return isinstance(code, int) and (code & 0xFF in _DAMAGE or code == sqlite3.SQLITE_IOERR_SHORT_READ)
