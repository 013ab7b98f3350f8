from __future__ import annotations

import asyncio

import pytest

from monai_node.mesh.gateway.http.recording import Recording


def test_readers_get_every_piece_wherever_they_begin() -> None:
    async def main() -> None:
        recording = Recording(100)
        recording.add(b"a")
        early = asyncio.create_task(_read(recording, 0))
        late = asyncio.create_task(_read(recording, 2))
        for piece in (b"b", b"c"):
            await asyncio.sleep(0)
            recording.add(piece)
        recording.finish()
        async with asyncio.timeout(5):
            assert (await early, await late) == (b"abc", b"c")

    asyncio.run(main())


def test_what_is_beyond_the_bound_is_let_go_from_its_beginning() -> None:
    async def main() -> None:
        recording = Recording(4)
        for piece in (b"aa", b"bb", b"cc"):
            recording.add(piece)
        assert (recording.first, recording.end, recording.byte_count) == (1, 3, 4)
        assert await recording.pieces(1) == [b"bb", b"cc"]
        with pytest.raises(LookupError):
            await recording.pieces(0)
        recording.add(b"larger than all")
        assert await recording.pieces(3) == [b"larger than all"]

    asyncio.run(main())


async def _read(recording: Recording, start: int) -> bytes:
    found = b""
    while pieces := await recording.pieces(start):
        start += len(pieces)
        found += b"".join(pieces)
    return found
