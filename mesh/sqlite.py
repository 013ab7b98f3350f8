"""SQLite files of the state directory: private, versioned, set aside when damaged, never on the event loop.

Each file is written ahead (WAL) by one thread that owns its connection. What was committed outlives a
kill -9 of this process; after a power cut the last moments may be missing, and nothing is half there.
Another process may have the same file open: whoever writes waits for the other, for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from monai_node.mesh.sqlite_file import Migration, connect, is_damage, keep_aside, transaction
from monai_node.registry.errors import NodeError, SetupError, log_defect

_log = logging.getLogger(__name__)

# That a caller waits for its turn and its answer.
CALL_SECONDS_MAX = 10.0
# That leaving waits for what is still to be written; a disk that hangs must not keep a node from ending.
CLOSE_SECONDS_MAX = 5.0
# Rows that wait for the disk: with the largest of ours about 20 MB.
WAITING_MAX = 4096
# Of one transaction: enough that a burst costs few of them, few enough that a reader soon has its turn.
BATCH_MAX = 256

# What a disk answers with, also while a new file is begun in the place of a damaged one.
_TROUBLES = (sqlite3.Error, OSError, SetupError)

Value = str | bytes | int | float | None
_T = TypeVar("_T")


class Unavailable(NodeError):
    """The file cannot be read or written at this moment."""

    status = 503
    default_code = "storage_unavailable"


@dataclass(frozen=True, slots=True)
class _Write:
    statement: str
    values: Sequence[Value]


@dataclass(frozen=True, slots=True)
class _Call:
    work: Callable[[sqlite3.Connection], Any]
    result: Future[Any]


class Database:
    """One open file. `open_database` makes one; its methods belong to the event loop."""

    def __init__(self, path: Path, migrations: Sequence[Migration]) -> None:
        self._path = path
        self._migrations = migrations
        self._jobs: queue.SimpleQueue[_Write | _Call | None] = queue.SimpleQueue()
        self._opened: Future[None] = Future()
        self._ended: Future[None] = Future()
        self._counting = threading.Lock()
        self._lost_count = 0
        self._connection: sqlite3.Connection | None = None  # of the thread alone

    @property
    def lost_count(self) -> int:
        """Rows that were given to `write` and could not be kept."""
        return self._lost_count

    def write(self, statement: str, *values: Value) -> None:
        """Have one statement carried out soon, in the order of the calls; waits for nothing.

        A row that cannot be written, or for which WAITING_MAX others wait, is lost: counted, and told in
        the log.
        """
        if self._jobs.qsize() >= WAITING_MAX:
            self._lose(1, "the disk is too slow")
        else:
            self._jobs.put(_Write(statement, values))

    async def call(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """What `work` gives, run in one transaction after all that was written before; it may run twice,
        when the file turns out to be damaged. Unavailable when the file or the disk fails."""
        if self._jobs.qsize() >= WAITING_MAX:
            raise Unavailable(f"{self._path.name} cannot be read: the disk is too slow")
        result: Future[_T] = Future()
        self._jobs.put(_Call(work, result))
        try:
            async with asyncio.timeout(CALL_SECONDS_MAX):
                return await asyncio.wrap_future(result)
        except TimeoutError:
            raise Unavailable(f"{self._path.name} cannot be read: the disk is too slow") from None
        except _TROUBLES as error:
            raise Unavailable(f"{self._path.name} cannot be read ({error})") from None

    async def flush(self) -> None:
        """Return when all that was written before is on disk, or lost and counted; Unavailable when it is
        neither in time."""
        await self.call(lambda _: None)

    async def open(self) -> None:
        for promised in (self._opened, self._ended):
            promised.set_running_or_notify_cancel()  # the thread keeps them, whoever still waits
        threading.Thread(target=self._serve, name=f"sqlite {self._path.name}", daemon=True).start()
        try:
            async with asyncio.timeout(CALL_SECONDS_MAX):
                await asyncio.wrap_future(self._opened)
        except TimeoutError:
            raise SetupError(
                f"{self._path} could not be opened within {CALL_SECONDS_MAX:g} s; is another process "
                "holding it, or the disk hanging?"
            ) from None

    async def close(self) -> None:
        self._jobs.put(None)
        try:
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await asyncio.wrap_future(self._ended)
        except TimeoutError:
            _log.warning("%s was left unfinished: the disk is too slow", self._path.name)

    # --- the thread -----------------------------------------------------------------------------------
    def _serve(self) -> None:
        try:
            self._connect()
        except Exception as error:
            self._opened.set_exception(error)
        else:
            self._opened.set_result(None)
            try:
                while self._serve_next():
                    pass
                if self._connection is not None:
                    self._connection.close()
            except Exception as error:  # an entry point: nobody else would hear of it
                log_defect("a database", error)
        finally:
            self._ended.set_result(None)

    def _connect(self) -> sqlite3.Connection:
        connection = self._connection = connect(self._path, self._migrations)
        self._inode = self._path.stat().st_ino
        return connection

    def _serve_next(self) -> bool:
        """Carry out the next call, or all writes before it; whether anything may follow."""
        writes: list[_Write] = []
        job = self._jobs.get()
        while isinstance(job, _Write):
            writes.append(job)
            if len(writes) == BATCH_MAX or self._jobs.empty():
                self._commit(writes)
                return True
            job = self._jobs.get()
        if writes:
            self._commit(writes)
        if job is not None:
            self._answer(job)
        return job is not None

    def _commit(self, writes: Sequence[_Write]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            for write in writes:
                connection.execute(write.statement, write.values)

        try:
            self._transact(work)
        except _TROUBLES as error:
            self._lose(len(writes), str(error))
        except Exception as error:
            self._lose(len(writes), "a defect of ours")
            log_defect("writing to a database", error)

    def _answer(self, call: _Call) -> None:
        if not call.result.set_running_or_notify_cancel():
            return
        try:
            found = self._transact(call.work)
        except Exception as error:
            call.result.set_exception(error)
        else:
            call.result.set_result(found)

    def _transact(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        connection = self._connection or self._connect()
        try:
            with transaction(connection):
                return work(connection)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
        # None until a new file could be begun, which may take a disk that has room again.
        self._connection = None
        connection.close()
        # Another process may have met the damage before: then the file is a new one already.
        if self._path.stat().st_ino == self._inode:
            keep_aside(self._path)
        connection = self._connect()
        with transaction(connection):
            return work(connection)

    def _lose(self, count: int, why: str) -> None:
        """A stall may lose thousands: each doubling of their number is one line of the log."""
        with self._counting:
            before, self._lost_count = self._lost_count, self._lost_count + count
        if before.bit_length() != self._lost_count.bit_length():
            _log.warning("%d rows of %s were lost: %s", self._lost_count, self._path.name, why)


@contextlib.asynccontextmanager
async def open_database(path: Path, migrations: Sequence[Migration]) -> AsyncGenerator[Database]:
    """The database in `path`, made when missing, brought to the version that `migrations` end with.

    The folder is there already. A damaged file is set aside with a line in the log, and a new one begun.
    SetupError when the file cannot be used, or was written by a newer version, which leaves it untouched.
    """
    database = Database(path, migrations)
    try:
        await database.open()
        yield database
    finally:
        await database.close()
