"""The kit's links: real sockets, and the arithmetic of corruption."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults.conditions import Conditions, Corrupter, Corruption
from faults.link import CONNECTIONS_MAX, LinkProxy


class EchoServer:
    """Answers every byte with itself, on loopback; `received` is what came in."""

    def __init__(self) -> None:
        self.received = b""
        self.ended: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.accepted: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted.append(connection)
            self._threads.append(threading.Thread(target=self._echo, args=(connection,)))
            self._threads[-1].start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.received += data
                    connection.sendall(data)
                self.ended.append("eof")
            except OSError:
                self.ended.append("reset")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.accepted:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def server() -> Generator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@contextmanager
def dialled(link: LinkProxy) -> Generator[socket.socket]:
    with socket.create_connection(("127.0.0.1", link.port), timeout=5) as connection:
        yield connection


def receive(connection: socket.socket, size: int) -> bytes:
    """`size` bytes, or what came before the end; a reset raises."""
    got = b""
    while len(got) < size and (data := connection.recv(size - len(got))):
        got += data
    return got


def assert_silent(connection: socket.socket, seconds: float = 0.1) -> None:
    connection.settimeout(seconds)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.settimeout(5)


def test_a_good_link_carries_everything_and_both_ends_end_well(server: EchoServer) -> None:
    data = Random(1).randbytes(1 << 20)
    with LinkProxy(server.address) as link, dialled(link) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        assert receive(connection, len(data)) == data
        sender.join(5)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
        link.wait(lambda stats: stats.open == 0)
        assert (link.stats.bytes_up, link.stats.bytes_down) == (len(data), len(data))
    assert server.ended == ["eof"]


def test_delay_is_added_each_way_and_does_not_limit_throughput(server: EchoServer) -> None:
    with LinkProxy(server.address, seed=3) as link, dialled(link) as connection:
        link.slow(100, jitter_ms=20)
        began = time.monotonic()
        for _ in range(20):
            connection.sendall(b"x")
            time.sleep(0.002)  # pieces of their own
        assert receive(connection, 20) == b"x" * 20
        assert 0.16 <= time.monotonic() - began < 1.0  # twenty round trips would take four seconds


def test_a_trickle_lets_so_many_bytes_through_in_a_second(server: EchoServer) -> None:
    with LinkProxy(server.address) as link, dialled(link) as connection:
        link.trickle(200)
        began = time.monotonic()
        connection.sendall(b"y" * 40)
        assert receive(connection, 40) == b"y" * 40
        assert time.monotonic() - began >= 0.17
        connection.sendall(b"z" * 400)
        link.heal()  # also for what is on its way
        assert receive(connection, 400) == b"z" * 400
        assert time.monotonic() - began < 1.5


def test_a_black_hole_holds_bytes_and_new_dials_until_it_heals(server: EchoServer) -> None:
    with LinkProxy(server.address) as link, dialled(link) as connection:
        link.black_hole()
        connection.sendall(b"held")
        with dialled(link) as second:
            second.sendall(b"2")
            assert_silent(connection)
            assert server.received == b""
            link.heal()
            assert receive(connection, 4) == b"held"
            assert receive(second, 1) == b"2"


def test_behind_a_black_hole_the_death_of_the_node_is_not_seen(server: EchoServer) -> None:
    with LinkProxy(server.address) as link, dialled(link) as connection:
        connection.sendall(b"a")
        assert receive(connection, 1) == b"a"
        link.black_hole()
        server.accepted[0].shutdown(socket.SHUT_RDWR)
        assert_silent(connection)
        link.heal()
        assert connection.recv(1) == b""


def test_a_half_open_link_works_in_one_direction(server: EchoServer) -> None:
    with LinkProxy(server.address) as link, dialled(link) as connection:
        connection.sendall(b"a")
        assert receive(connection, 1) == b"a"
        link.half_open("up")
        connection.sendall(b"b")
        link.wait(lambda stats: stats.bytes_up == 2)
        assert_silent(connection)
        link.half_open("down")
        connection.sendall(b"c")
        assert receive(connection, 1) == b"b"
        assert_silent(connection)
        assert server.received == b"ab"


def test_a_cut_resets_both_ends_and_new_connections_work(server: EchoServer) -> None:
    with LinkProxy(server.address) as link:
        with dialled(link) as connection:
            connection.sendall(b"a")
            assert receive(connection, 1) == b"a"
            link.cut()
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        with dialled(link) as connection:
            connection.sendall(b"b")
            assert receive(connection, 1) == b"b"
    assert server.ended[0] == "reset"


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_cut_after_bytes_lets_exactly_these_through(server: EchoServer, count: int) -> None:
    with LinkProxy(server.address) as link, dialled(link) as connection:
        link.cut_after_bytes(count)
        connection.sendall(b"0123456789")
        assert receive(connection, count) == b"0123456789"[:count]
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        assert link.stats.bytes_down == count


def test_a_refusing_link_refuses_until_it_heals_on_the_same_port(server: EchoServer) -> None:
    with LinkProxy(server.address) as link, dialled(link) as old:
        link.refuse()
        with pytest.raises(ConnectionRefusedError), dialled(link):
            pass
        old.sendall(b"a")
        assert receive(old, 1) == b"a"
        link.heal()
        with dialled(link) as new:
            new.sendall(b"b")
            assert receive(new, 1) == b"b"


def test_a_node_that_refuses_resets_the_dialer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    # The reset may overtake the end of `connect` itself.
    with LinkProxy(address) as link, pytest.raises(ConnectionResetError), dialled(link) as connection:
        connection.recv(1)


def test_the_byte_at_an_offset_arrives_inverted_in_one_direction(server: EchoServer) -> None:
    with LinkProxy(server.address) as link, dialled(link) as connection:
        link.corrupt(offset=3)
        connection.sendall(b"aaaaaa")
        assert receive(connection, 6) == b"aaa\x9eaa"
        assert server.received == b"aaaaaa"


def test_more_connections_than_the_limit_are_reset(server: EchoServer) -> None:
    with LinkProxy(server.address) as link:
        link.black_hole()
        held = [socket.create_connection(("127.0.0.1", link.port)) for _ in range(CONNECTIONS_MAX)]
        try:
            link.wait(lambda stats: stats.open == CONNECTIONS_MAX)
            with pytest.raises(ConnectionResetError), dialled(link) as one_more:
                one_more.recv(1)
            assert link.stats.rejected == 1
        finally:
            for connection in held:
                connection.close()


def test_a_multiaddr_leads_through_the_link(server: EchoServer) -> None:
    host, port = server.address
    join = f"monai-node serve --join /ip4/{host}/tcp/{port}/p2p/12D3KooW m.gguf"
    told: list[tuple[str, str]] = []
    with LinkProxy.to_multiaddr(join, on_fault=lambda what, at: told.append((what, at))) as link:
        through = f"monai-node serve --join /ip4/127.0.0.1/tcp/{link.port}/p2p/12D3KooW m.gguf"
        assert link.through(join) == through
        with dialled(link) as connection:
            connection.sendall(b"a")
            assert receive(connection, 1) == b"a"
        link.half_open("up")
    assert told == [("half_open up", "link")]
    with pytest.raises(ValueError, match="no /ip4/"):
        LinkProxy.to_multiaddr("/memory/p2p/x")


@given(st.binary(max_size=400), st.lists(st.integers(0, 400)), st.floats(0, 1), st.integers(0, 9))
def test_corruption_does_not_depend_on_how_the_stream_is_cut(
    data: bytes, cuts: list[int], probability: float, seed: int
) -> None:
    corruption = Corruption(probability=probability)
    whole = Corrupter(Random(seed)).apply(data, corruption)
    pieces, corrupter, start = b"", Corrupter(Random(seed)), 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        pieces += corrupter.apply(data[start:cut], corruption)
        start = cut
    assert pieces == whole
    assert all(after in (before, before ^ 0xFF) for before, after in zip(data, whole, strict=True))


def test_corruption_hits_about_as_often_as_it_is_asked_to() -> None:
    for probability, low, high in ((0.0, 0, 0), (0.01, 60, 140), (1.0, 10_000, 10_000)):
        damaged = Corrupter(Random(5)).apply(bytes(10_000), Corruption(probability=probability))
        assert low <= 10_000 - damaged.count(0) <= high


def test_jitter_never_makes_a_delay_negative() -> None:
    conditions = Conditions(delay_ms=10, jitter_ms=30)
    assert conditions.delay_seconds(-1) == 0
    assert conditions.delay_seconds(1) == pytest.approx(0.04)
