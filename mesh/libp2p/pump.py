"""Moves the bytes of one stream between libp2p and its link. On the trio thread."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

from typing import cast

import trio
from libp2p.network.stream.net_stream import NetStream
from libp2p.stream_muxer.exceptions import MuxedStreamEOF
from libp2p.stream_muxer.yamux.yamux import YamuxStream

from monai_node.mesh.libp2p import patches
from monai_node.mesh.libp2p.framing import FrameReader
from monai_node.mesh.libp2p.link import EOF, READ_SECONDS, Link
from monai_node.mesh.libp2p.scopes import shield
from monai_node.registry.errors import ProtocolViolation

_READ_BYTES = 64 << 10
# After this side has ended and nobody waits for frames any more, the peer may take this long to end
# its own: then the stream is cut, or a peer could collect half-open streams without end.
_LINGER_SECONDS = 10.0
_PARTING_SECONDS = 2.0  # for the few bytes that close or reset a stream


async def pump(stream: NetStream, link: Link) -> None:
    """Carry a stream until both sides have ended it, or it is cut; then free it.

    libp2p's streams are read and written below their state machine, which takes two locks per call;
    opening, closing and resetting go through it.
    """
    muxed = cast(YamuxStream, stream.muxed_stream)
    reason: str | None = None
    is_whole = False
    try:
        with link.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_write, muxed, link)
                await _read(muxed, link)
            is_whole = True
    except Exception as error:
        # Entry point: a peer and py-libp2p can fail in ways that nobody listed; this stream pays.
        reason = _reason(error)
    finally:
        link.inbox.end(reason or link.reason)
        link.outbox.lose(reason or link.reason)
        with shield(_PARTING_SECONDS):
            await _part(stream, is_whole)
        patches.forget(muxed)


async def _write(muxed: YamuxStream, link: Link) -> None:
    while (data := await link.outbox.take()) is not None:
        await muxed.write(data)
    await muxed.close()  # our direction only
    link.outbox.written()


async def _read(muxed: YamuxStream, link: Link) -> None:
    frames = FrameReader()
    while (data := await _some(muxed, link)) is not None:
        await link.inbox.put(frames.feed(data))
    if not frames.is_between_frames:
        raise _Lost("the peer ended its side within a frame")
    link.inbox.end(EOF)


async def _some(muxed: YamuxStream, link: Link) -> bytes | None:
    """The next bytes; None when the peer has ended its side well."""
    while True:
        with trio.move_on_after(_LINGER_SECONDS):
            try:
                return await muxed.read(_READ_BYTES)
            except MuxedStreamEOF:
                # Yamux says EOF for a reset as well, and for a lost connection.
                if muxed.conn.event_shutting_down.is_set():
                    raise _Lost("the connection to the peer was lost") from None
                if muxed.reset_received:
                    raise _Lost("the peer reset the stream") from None
                return None
        if link.outbox.ended.is_set() and not link.inbox.is_awaited:
            raise _Lost("nobody waited for the peer's end of the stream any more")


async def _part(stream: NetStream, is_whole: bool) -> None:
    try:
        if is_whole:
            await stream.close()
        else:
            await stream.reset()
    except Exception:
        # Entry point: the connection may be gone, and with it whatever there was to close.
        return


class _Lost(Exception):
    """Why a stream ended early; the message is for a person."""


def _reason(error: BaseException) -> str:
    """One sentence out of what two tasks raised."""
    while isinstance(error, BaseExceptionGroup):
        error = cast(tuple[BaseException, ...], error.exceptions)[0]
    if isinstance(error, _Lost | ProtocolViolation):
        return str(error)
    if isinstance(error, trio.TooSlowError):
        return f"this node did not read the stream for {READ_SECONDS:.0f} s"
    return f"the stream to the peer was lost ({type(error).__name__})"
