"""The kit's client: what each way of ending a stream looks like, over a real socket."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from faults import client
from faults.checker import check
from faults.client import Disconnect, StreamClient
from faults.history import Answered, Chunk, History, MeshEvent, RequestStarted, load_history
from faults.sse import SseParser
from faults.violations import Rule

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
DONE = "[DONE]"


def chunk(text: str = "", finish: str | None = None, **more: Any) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return json.dumps({"choices": [choice], **more}, ensure_ascii=False)


def sse(*messages: str) -> bytes:
    """HTTP chunks that hold these messages, each cut in two in an unlucky place."""
    whole = "".join(f"data: {message}\n\n" for message in messages).encode()
    pieces = (whole[: len(whole) // 2], whole[len(whole) // 2 :])
    return b"".join(http_chunk(piece) for piece in pieces if piece)


def http_chunk(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


class ScriptedGateway:
    """Answers each request with the next script; a script is bytes, or a wait between them."""

    def __init__(self) -> None:
        self.scripts: Sequence[Sequence[bytes | Callable[[], object]]] = []
        self.bodies: list[dict[str, Any]] = []
        self.is_reset = False  # end with RST
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    self._answer(connection)
                except OSError:
                    continue  # the client left, which some tests want

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        raw = b""
        while b"\r\n\r\n" not in raw:
            raw += connection.recv(65536)
        head, _, body = raw.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
        self.bodies.append(json.loads(body))
        for step in self.scripts[len(self.bodies) - 1]:
            if isinstance(step, bytes):
                connection.sendall(step)
            else:
                step()
        if self.is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def gateway() -> Generator[ScriptedGateway]:
    gateway = ScriptedGateway()
    yield gateway
    gateway.close()


def rules(history: History) -> set[Rule]:
    return {violation.rule for violation in check(history.records)}


def test_a_complete_stream_is_recorded_and_breaks_nothing(gateway: ScriptedGateway, history: History) -> None:
    # U+2028 ends a line for `str.splitlines`, and must not for us.
    text = sse(chunk(""), chunk("a\u2028b"), chunk("c"))
    rest = sse(chunk(finish="stop"), json.dumps({"choices": [], "usage": {}}), DONE)
    gateway.scripts = [[OK, http_chunk(b": keep-alive\r\n\r\n"), text, rest, END]]
    seen: list[int] = []
    options = {"privacy": "trusted"}
    result = StreamClient(gateway.url, history).chat(
        "hi", deadline_seconds=5, mesh=options, on_chunk=seen.append, seed=7
    )
    assert (result.how, result.text, result.finish_reason) == ("done", "a\u2028bc", "stop")
    assert seen == [0, 1, 2]
    (body,) = gateway.bodies
    assert body["mesh"] == {"deadline_seconds": 5, "events": True, "privacy": "trusted"}
    assert (body["stream"], body["seed"]) == (True, 7)
    chunks = [record for record in history.records if isinstance(record, Chunk)]
    assert [record.chars for record in chunks] == [0, 3, 1, 0]
    assert len({record.bytes for record in chunks}) > 1


def test_a_silent_cut_is_seen_by_client_and_checker(gateway: ScriptedGateway) -> None:
    history = History()
    gateway.scripts = [[OK, sse(chunk("ab")), END]]
    result = StreamClient(gateway.url, history).chat("hi")
    assert (result.how, result.text) == ("clean_end_without_done", "ab")
    assert rules(history) == {Rule.SILENT_CUT}


def test_an_error_event_is_an_honest_end(gateway: ScriptedGateway, history: History) -> None:
    error = json.dumps({"error": {"message": "m", "code": "peer_lost"}})
    gateway.scripts = [[OK, sse(chunk("ab"), error, DONE), END]]
    result = StreamClient(gateway.url, history).chat("hi")
    assert (result.how, result.error, result.text) == ("error_event", "peer_lost", "ab")


@pytest.mark.parametrize("is_reset", [True, False])
def test_a_broken_connection_is_a_reset(gateway: ScriptedGateway, is_reset: bool) -> None:
    history = History()
    gateway.scripts, gateway.is_reset = [[OK, sse(chunk("ab"))]], is_reset
    assert StreamClient(gateway.url, history).chat("hi").how == "reset"
    assert rules(history) == {Rule.EXPLICIT_END}


def test_a_gateway_that_is_gone_is_a_reset(history: History) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    history.fault("kill", "gateway")  # so that the history holds
    assert StreamClient(f"http://127.0.0.1:{port}/v1/", history).chat("hi").how == "reset"


def test_a_refusal_is_recorded_with_its_code_and_when_to_retry(
    gateway: ScriptedGateway, history: History
) -> None:
    error = {"message": "m", "type": "server_error", "param": None, "code": "no_provider"}
    body = json.dumps({"error": error}).encode()
    head = b"HTTP/1.1 503 X\r\nretry-after: 3\r\ncontent-length: %d\r\n\r\n" % len(body)
    gateway.scripts = [[head, body]]
    result = StreamClient(gateway.url, history).chat("hi")
    assert (result.how, result.status, result.error) == ("http_error", 503, "no_provider")
    (answered,) = [record for record in history.records if isinstance(record, Answered)]
    assert (answered.code, answered.retry_after_seconds) == ("no_provider", 3)


def test_an_error_body_of_another_shape_has_no_code(gateway: ScriptedGateway) -> None:
    history = History()
    gateway.scripts = [[b'HTTP/1.1 422 X\r\ncontent-length: 13\r\n\r\n{"detail":[]}']]
    assert StreamClient(gateway.url, history).chat("hi").error is None
    assert rules(history) == {Rule.EXPLICIT_END}


def test_the_client_gives_up_after_deadline_and_grace(
    gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "GIVE_UP_SECONDS", 0.1)
    history, is_over = History(), threading.Event()
    gateway.scripts = [[OK, sse(chunk("ab")), lambda: is_over.wait(5)]]
    result = StreamClient(gateway.url, history).chat("hi", deadline_seconds=0.1)
    is_over.set()
    assert (result.how, result.text) == ("gave_up", "ab")
    assert Rule.EXPLICIT_END in rules(history)


def test_a_hook_may_inject_a_fault_or_leave_at_the_chosen_piece(
    gateway: ScriptedGateway, history: History
) -> None:
    def leave(n: int) -> None:
        if n == 2:
            history.fault("kill", "provider")
            raise Disconnect

    gateway.scripts = [[OK, sse(chunk("a"), chunk("b"), chunk("c", "stop"), DONE), END]]
    result = StreamClient(gateway.url, history).chat("hi", on_chunk=leave)
    assert (result.how, result.text) == ("cancelled", "ab")
    assert [record.kind for record in history.records][-2:] == ["fault", "ended"]


@pytest.mark.parametrize("place", ["itself", "mesh", "event", "events"])
def test_run_events_are_found_wherever_they_stand(
    gateway: ScriptedGateway, history: History, place: str
) -> None:
    event: dict[str, Any] = {"type": "run.created", "run": "run-1", "seq": 0}
    end: dict[str, Any] = {"type": "error", "run": "run-1", "seq": 1, "status": 502}
    end |= dict.fromkeys(("kind", "code", "message"), "x")
    wrap: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "itself": lambda event: event,
        "mesh": lambda event: {"choices": [], "mesh": event},
        "event": lambda event: {"choices": [], "mesh": {"event": event}},
        "events": lambda event: {"choices": [], "mesh": {"events": [event]}},
    }
    messages = [json.dumps(wrap[place](each)) for each in (event, end)]
    gateway.scripts = [[OK, sse(*messages, chunk("a", "stop"), DONE), END]]
    result = StreamClient(gateway.url, history).chat("hi")
    assert (result.run, result.text, result.error) == ("run-1", "a", None)
    events = [record.event for record in history.records if isinstance(record, MeshEvent)]
    assert events == [event, end]


def test_a_history_on_disk_is_the_history(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history = History(path, clock=iter([10.0, 12.5, 13.0]).__next__)
    history.fault("freeze", "peer-a")
    history.candidates({"chat": ("peer-a", "peer-b")})
    history.add(RequestStarted(at=4.0, request="r", deadline_seconds=1))
    assert load_history(path) == list(history.records)
    assert [record.at for record in history.records] == [2.5, 3.0, 4.0]


def test_server_sent_events_are_read_byte_by_byte_as_at_once() -> None:
    stream = b": hi\r\n\r\nevent: mesh\ndata: a\ndata:b\n\nevent: lost\n\ndata: \xc3\xa9\n\ndata: rest"
    at_once = list(SseParser().feed(stream))
    parser = SseParser()
    singly = [event for byte in stream for event in parser.feed(bytes([byte]))]
    assert at_once == singly
    assert [(event.name, event.data) for event in singly] == [("mesh", "a\nb"), ("message", "é")]
