"""A database of the state directory: what it keeps, what it loses, and how it says so."""

import asyncio
import logging
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from monai_node.mesh import sqlite
from monai_node.mesh.sqlite import Unavailable, open_database
from monai_node.registry.errors import SetupError

FIRST = ("CREATE TABLE words (word TEXT NOT NULL) STRICT",)
SECOND = ("ALTER TABLE words ADD COLUMN length INTEGER", "CREATE INDEX by_length ON words (length)")
INSERT = "INSERT INTO words (word) VALUES (?)"


def words(connection: sqlite3.Connection) -> list[str]:
    return [word for (word,) in connection.execute("SELECT word FROM words ORDER BY rowid")]


async def kept(path: Path, *added: str, migrations: tuple[tuple[str, ...], ...] = (FIRST,)) -> list[str]:
    """The words in a database after `added` were written to it."""
    async with open_database(path, migrations) as database:
        for word in added:
            database.write(INSERT, word)
        return await database.call(words)


def test_rows_are_there_again_after_closing_and_only_for_their_owner(tmp_path: Path) -> None:
    path = tmp_path / "words.sqlite"

    async def scenario() -> None:
        assert await kept(path, "one", "two") == ["one", "two"]
        assert await kept(path, "three") == ["one", "two", "three"]

    asyncio.run(scenario())
    assert [file.name for file in tmp_path.iterdir()] == ["words.sqlite"]  # no companion is left behind
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_companions_of_an_open_file_are_private_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_database(tmp_path / "words.sqlite", [FIRST]) as database:
            database.write(INSERT, "one")
            await database.flush()
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
            assert modes == dict.fromkeys(modes, 0o600)
            assert "words.sqlite-wal" in modes

    asyncio.run(scenario())


def test_an_older_schema_is_brought_up_to_date_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "words.sqlite"

    async def scenario() -> None:
        await kept(path, "one")
        assert await kept(path, "two", migrations=(FIRST, SECOND)) == ["one", "two"]

    asyncio.run(scenario())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_migration_that_fails_leaves_the_schema_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "words.sqlite"
    broken = ("ALTER TABLE words ADD COLUMN length INTEGER", "CREATE INDEX by_length ON missing (length)")

    async def scenario() -> None:
        await kept(path, "one")
        with pytest.raises(SetupError, match="cannot be used"):
            await kept(path, migrations=(FIRST, broken))
        assert await kept(path, "two", migrations=(FIRST, SECOND)) == ["one", "two"]

    asyncio.run(scenario())


def test_a_newer_schema_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "words.sqlite"
    asyncio.run(kept(path, "one", migrations=(FIRST, SECOND)))
    before = path.read_bytes()
    with pytest.raises(SetupError, match=r"schema 2, this one knows 1\); upgrade"):
        asyncio.run(kept(path))
    assert path.read_bytes() == before


def test_a_newer_schema_of_a_process_that_was_killed_keeps_its_companions(tmp_path: Path) -> None:
    """What it had written last stands in the companions alone."""
    path, copy = tmp_path / "words.sqlite", tmp_path / "copy" / "words.sqlite"
    copy.parent.mkdir()

    async def scenario() -> None:
        async with open_database(path, [FIRST, SECOND]) as database:
            database.write(INSERT, "one")
            await database.flush()
            for end in ("", "-wal"):
                copy.with_name(copy.name + end).write_bytes(path.with_name(path.name + end).read_bytes())
        before = {end: copy.with_name(copy.name + end).read_bytes() for end in ("", "-wal")}
        with pytest.raises(SetupError, match="newer monai-node"):
            await kept(copy)
        assert {end: copy.with_name(copy.name + end).read_bytes() for end in before} == before
        assert await kept(copy, migrations=(FIRST, SECOND)) == ["one"]

    asyncio.run(scenario())


@pytest.mark.parametrize("content", [b"no database at all" * 1000, b"\0" * 8192])
def test_a_file_that_is_no_database_is_set_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "words.sqlite"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert asyncio.run(kept(path, "one")) == ["one"]
    assert (tmp_path / "words.sqlite.corrupt-1").read_bytes() == content
    assert "is set aside as words.sqlite.corrupt-1" in caplog.text


def test_damage_that_is_met_later_sets_the_file_aside_with_its_companions(tmp_path: Path) -> None:
    path = tmp_path / "words.sqlite"
    asyncio.run(kept(path, *("word" * 50 for _ in range(2000))))
    content = bytearray(path.read_bytes())
    content[8192:-8192] = b"\xa5" * (len(content) - 16384)
    path.write_bytes(content)
    assert asyncio.run(kept(path, "one")) in ([], ["one"])  # what came just before may go with it
    aside = tmp_path / "words.sqlite.corrupt-1"
    assert aside.read_bytes()[8192:9000] == b"\xa5" * 808
    assert asyncio.run(kept(path, "two"))[-1:] == ["two"]


def test_a_disk_that_has_no_room_for_a_new_file_has_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, connect = tmp_path / "words.sqlite", sqlite.connect
    asyncio.run(kept(path, *("word" * 50 for _ in range(2000))))
    content = bytearray(path.read_bytes())
    content[8192:-8192] = b"\xa5" * (len(content) - 16384)

    def refuse(*_: object) -> sqlite3.Connection:
        raise SetupError("there is no room")

    async def scenario() -> None:
        async with open_database(path, [FIRST]) as database:
            path.write_bytes(content)
            monkeypatch.setattr(sqlite, "connect", refuse)
            for _ in range(2):
                with pytest.raises(Unavailable, match="no room"):
                    await database.call(words)
            database.write(INSERT, "lost")
            with pytest.raises(Unavailable, match="no room"):
                await database.flush()
            assert database.lost_count == 1
            monkeypatch.setattr(sqlite, "connect", connect)
            database.write(INSERT, "kept")
            assert await database.call(words) == ["kept"]

    asyncio.run(scenario())


def test_a_folder_that_is_missing_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be used"):
        asyncio.run(kept(tmp_path / "nowhere" / "words.sqlite"))


def test_while_the_disk_stalls_nobody_waits_and_what_is_lost_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "WAITING_MAX", 8)
    stalled, resumed = threading.Event(), threading.Event()

    def stall(_: sqlite3.Connection) -> None:
        stalled.set()
        resumed.wait(10)

    async def scenario() -> None:
        async with open_database(tmp_path / "words.sqlite", [FIRST]) as database:
            stalling = asyncio.create_task(database.call(stall))
            await asyncio.to_thread(stalled.wait, 10)
            for number in range(20):
                database.write(INSERT, f"word {number}")
            with pytest.raises(Unavailable, match="the disk is too slow"):
                await database.flush()
            resumed.set()
            await stalling
            monkeypatch.undo()
            assert await database.call(words) == [f"word {number}" for number in range(8)]
            assert database.lost_count == 12

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"{n} rows of words.sqlite were lost: the disk is too slow" for n in (1, 2, 4, 8)]


def test_a_caller_does_not_wait_for_ever_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "CALL_SECONDS_MAX", 0.2)
    resumed = threading.Event()

    async def scenario() -> None:
        async with open_database(tmp_path / "words.sqlite", [FIRST]) as database:
            with pytest.raises(Unavailable, match="too slow"):
                await database.call(lambda _: resumed.wait(10))
            resumed.set()
            database.write(INSERT, "after")
            monkeypatch.setattr(sqlite, "CALL_SECONDS_MAX", 10.0)
            assert await database.call(words) == ["after"]

    asyncio.run(scenario())


def test_a_statement_that_fails_takes_its_transaction_with_it_and_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_database(tmp_path / "words.sqlite", [FIRST]) as database:
            database.write("INSERT INTO missing VALUES (?)", "one")
            await database.flush()
            assert database.lost_count == 1
            database.write(INSERT, "a lone surrogate \ud800")  # which SQLite's text cannot hold
            await database.flush()
            assert database.lost_count == 2
            database.write(INSERT, "two")
            assert await database.call(words) == ["two"]
            with pytest.raises(Unavailable, match="no such table"):
                await database.call(lambda connection: connection.execute("SELECT * FROM missing"))

    asyncio.run(scenario())


def test_two_processes_may_have_the_same_file_open(tmp_path: Path) -> None:
    path = tmp_path / "words.sqlite"

    async def scenario() -> None:
        async with open_database(path, [FIRST]) as one, open_database(path, [FIRST]) as other:
            for number in range(100):
                (one, other)[number % 2].write(INSERT, str(number))
            await one.flush()
            await other.flush()
            assert sorted(await one.call(words), key=int) == [str(number) for number in range(100)]

    asyncio.run(scenario())


def test_several_that_open_a_new_file_at_once_agree_on_it(tmp_path: Path) -> None:
    path = tmp_path / "words.sqlite"

    async def scenario() -> None:
        found = await asyncio.gather(*(kept(path, str(number)) for number in range(8)))
        assert all(str(number) in words for number, words in enumerate(found))
        assert len(await kept(path)) == 8

    asyncio.run(scenario())
