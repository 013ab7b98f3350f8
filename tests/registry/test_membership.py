"""Liveness by silence. Time is a number that the tests choose; fractions of 1/64 s add up exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_node.mesh.identity import Identity
from monai_node.registry.advert import Advert, Beacon, Signed, digest_of, seal
from monai_node.registry.ids import PeerId
from monai_node.registry.membership import PEERS_MAX, STALL_SECONDS, Change, Liveness, Membership
from monai_node.registry.wire import GONE_AFTER_SECONDS, SUSPECT_AFTER_SECONDS

ALICE = Identity(bytes(32))
BOB = Identity(b"\x01" * 32)
TICK = 1 / 4


def advert_of(identity: Identity, name: str = "", addrs: tuple[str, ...] = ()) -> Signed:
    advert = Advert(peer=identity.peer_id, name=name, addrs=list(addrs))
    envelope = seal(advert, identity.sign)
    return Signed(advert, envelope, digest_of(envelope))


def beacon_of(identity: Identity, seq: int, digest: bytes = bytes(32), running: int = 0) -> Beacon:
    return Beacon(peer=identity.peer_id, seq=seq, advert_digest=digest, running=running)


@dataclass
class World:
    """A table and its clock, which ticks as a healthy node does."""

    table: Membership = field(default_factory=Membership)
    now: float = 1000.0

    def wait(self, seconds: float) -> list[Change]:
        changes: list[Change] = []
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + TICK)
            changes += self.table.tick(self.now)
        return changes

    def liveness(self, identity: Identity = ALICE) -> Liveness:
        record = self.table.get(identity.peer_id)
        return record.liveness if record is not None else "gone"


def met() -> World:
    world = World()
    world.table.tick(world.now)
    world.table.connected(ALICE.peer_id, world.now)
    return world


def test_a_peer_that_said_hello_is_alive_and_one_that_nobody_met_is_unknown() -> None:
    world = World()
    change = world.table.connected(ALICE.peer_id, world.now)
    assert change == Change(ALICE.peer_id, "gone", "alive")
    assert world.liveness() == "alive"
    assert world.table.get(BOB.peer_id) is None
    assert world.table.connected(ALICE.peer_id, world.now) is None


def test_silence_makes_a_peer_suspect_and_then_gone_and_each_is_told_once() -> None:
    world = met()
    assert world.wait(SUSPECT_AFTER_SECONDS) == []
    assert world.wait(TICK) == [Change(ALICE.peer_id, "alive", "suspect")]
    assert world.wait(GONE_AFTER_SECONDS - SUSPECT_AFTER_SECONDS - TICK) == []
    assert world.wait(TICK) == [Change(ALICE.peer_id, "suspect", "gone")]
    assert world.wait(5.0) == []


def test_a_suspect_peer_that_is_heard_is_alive_again() -> None:
    world = met()
    world.wait(5.0)
    assert world.table.heard(ALICE.peer_id, world.now) == Change(ALICE.peer_id, "suspect", "alive")
    assert world.wait(SUSPECT_AFTER_SECONDS) == []


def test_a_peer_whose_connection_ended_is_gone_at_once_and_returns_only_by_direct_contact() -> None:
    world = met()
    assert world.table.disconnected(ALICE.peer_id, world.now) == Change(ALICE.peer_id, "alive", "gone")
    assert world.table.heard(ALICE.peer_id, world.now) is None
    world.table.observe_advert(advert_of(ALICE))
    world.table.observe_beacon(beacon_of(ALICE, 99))
    assert world.wait(1.0) == []
    assert world.liveness() == "gone"
    assert world.table.connected(ALICE.peer_id, world.now) == Change(ALICE.peer_id, "gone", "alive")


def test_what_is_said_of_peers_that_nobody_met_is_not_remembered() -> None:
    world = World()
    assert world.table.observe_advert(advert_of(ALICE)) is None
    assert not world.table.observe_beacon(beacon_of(ALICE, 1))
    assert world.table.heard(ALICE.peer_id, world.now) is None
    assert world.table.disconnected(ALICE.peer_id, world.now) is None
    assert list(world.table.records()) == []


def test_a_late_frame_does_not_turn_the_clock_back() -> None:
    world = met()
    world.wait(1.0)
    world.table.heard(ALICE.peer_id, world.now)
    world.table.heard(ALICE.peer_id, world.now - 1.0)
    assert world.wait(SUSPECT_AFTER_SECONDS) == []


# --- our own absence ------------------------------------------------------------------------------
@pytest.mark.parametrize("stall", [1.0, 30.0, 3600.0 * 8])
def test_the_time_that_this_node_itself_stood_still_is_nobodys_silence(stall: float) -> None:
    world = met()
    world.wait(1.0)
    world.now += stall
    assert world.table.tick(world.now) == []
    assert world.liveness() == "alive"


def test_a_peer_that_stays_silent_after_our_own_stall_is_still_found_out() -> None:
    world = met()
    world.now += 60.0
    assert world.table.tick(world.now) == []
    changes = world.wait(GONE_AFTER_SECONDS)
    assert [change.after for change in changes] == ["suspect", "gone"]


def test_a_machine_that_is_always_late_still_notices_a_frozen_peer() -> None:
    world = met()
    changes: list[Change] = []
    for _ in range(30):
        world.now += STALL_SECONDS * 2
        changes += world.table.tick(world.now)
    assert [change.after for change in changes] == ["suspect", "gone"]


def test_a_stall_does_not_make_anybody_heard_in_the_future() -> None:
    world = met()
    world.now += 60.0
    world.table.heard(ALICE.peer_id, world.now)
    world.table.tick(world.now)
    record = world.table.get(ALICE.peer_id)
    assert record is not None
    assert record.heard_at == world.now


# --- adverts and beacons --------------------------------------------------------------------------
def test_only_a_peer_with_an_advert_may_be_given_work() -> None:
    world = met()
    assert world.table.alive() == []
    world.table.observe_advert(advert_of(ALICE))
    world.table.connected(BOB.peer_id, world.now)
    world.table.observe_advert(advert_of(BOB))
    assert [record.peer for record in world.table.alive()] == sorted([ALICE.peer_id, BOB.peer_id])
    world.wait(SUSPECT_AFTER_SECONDS + TICK)
    assert world.table.alive() == []


def test_a_new_advert_is_a_change_and_the_same_one_is_not() -> None:
    world = met()
    first, second = advert_of(ALICE, "one", ("/a",)), advert_of(ALICE, "two", ("/b",))
    unchanged = Change(ALICE.peer_id, "alive", "alive")
    assert world.table.observe_advert(first) == unchanged
    assert world.table.observe_advert(first) is None
    assert world.table.observe_advert(second) == unchanged
    record = world.table.get(ALICE.peer_id)
    assert record is not None
    assert record.advert == second.advert
    assert record.addrs == ["/b"]


def test_older_and_equal_beacons_are_ignored() -> None:
    world = met()
    assert world.table.observe_beacon(beacon_of(ALICE, 5, running=1))
    assert not world.table.observe_beacon(beacon_of(ALICE, 5, running=2))
    assert not world.table.observe_beacon(beacon_of(ALICE, 4, running=3))
    record = world.table.get(ALICE.peer_id)
    assert record is not None
    assert record.beacon == beacon_of(ALICE, 5, running=1)
    assert world.table.observe_beacon(beacon_of(ALICE, 6, running=4))
    assert record.beacon == beacon_of(ALICE, 6, running=4)


def test_a_peer_that_lost_its_state_is_listened_to_again_after_a_hello() -> None:
    world = met()
    world.table.observe_beacon(beacon_of(ALICE, 10**9))
    world.table.disconnected(ALICE.peer_id, world.now)
    world.table.connected(ALICE.peer_id, world.now)
    assert world.table.observe_beacon(beacon_of(ALICE, 1))


def test_an_advert_is_lacked_while_the_beacon_names_another_one() -> None:
    world = met()
    assert world.table.lacks_advert(ALICE.peer_id) is None
    assert world.table.lacks_advert(BOB.peer_id) is None
    first, second = advert_of(ALICE, "one"), advert_of(ALICE, "two")
    world.table.observe_beacon(beacon_of(ALICE, 1, first.digest))
    assert world.table.lacks_advert(ALICE.peer_id) == first.digest
    world.table.observe_advert(first)
    assert world.table.lacks_advert(ALICE.peer_id) is None
    world.table.observe_beacon(beacon_of(ALICE, 2, second.digest))
    assert world.table.lacks_advert(ALICE.peer_id) == second.digest


# --- bound ----------------------------------------------------------------------------------------
def test_the_table_is_bounded_and_forgets_first_who_has_been_gone_longest() -> None:
    table = Membership()
    peers = [PeerId(f"peer-{number}") for number in range(PEERS_MAX + 3)]
    for number, peer in enumerate(peers[:PEERS_MAX]):
        table.connected(peer, float(number))
    for peer in (peers[7], peers[3]):
        table.disconnected(peer, float(PEERS_MAX))
    for peer in peers[PEERS_MAX:]:
        table.connected(peer, float(PEERS_MAX))
    kept = {record.peer for record in table.records()}
    assert len(kept) == PEERS_MAX
    assert kept.isdisjoint({peers[3], peers[7], peers[0]})
    assert kept.issuperset(peers[PEERS_MAX:])


# --- any history ----------------------------------------------------------------------------------
@dataclass
class Oracle:
    """What the first paragraph of the module says, for one peer, without any table."""

    is_connected: bool = False
    silence: float = 0.0
    before_tick: float | None = None  # since our last tick

    def pass_time(self, seconds: float) -> None:
        self.silence += seconds
        if self.before_tick is not None:
            self.before_tick += seconds

    def connect(self) -> None:
        self.is_connected, self.silence = True, 0.0

    def disconnect(self) -> None:
        self.is_connected = False

    def hear(self) -> None:
        if self.is_connected:
            self.silence = 0.0

    def tick(self) -> None:
        late = (self.before_tick or 0.0) - STALL_SECONDS
        self.before_tick = 0.0
        self.silence = max(0.0, self.silence - max(0.0, late))

    @property
    def liveness(self) -> Liveness:
        if not self.is_connected or self.silence > GONE_AFTER_SECONDS:
            return "gone"
        return "suspect" if self.silence > SUSPECT_AFTER_SECONDS else "alive"


Step = tuple[str, float]
steps = st.tuples(
    st.sampled_from(["tick", "tick", "tick", "hear", "connect", "disconnect", "beacon"]),
    # In 64ths of a second, a third off: sums never fall on a bound by rounding.
    st.integers(0, 64 * 4).map(lambda number: (number + 1 / 3) / 64),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(steps, max_size=60))
def test_after_any_history_liveness_is_what_silence_says(history: list[Step]) -> None:
    table, oracle, now = Membership(), Oracle(), 0.0
    told: Liveness = "gone"

    def note(change: Change | None) -> None:
        nonlocal told
        if change is not None:
            assert change.before == told, "changes follow one another"
            assert change.after != change.before
            told = change.after

    actions: dict[str, Callable[[], object]] = {
        "hear": oracle.hear,
        "connect": oracle.connect,
        "disconnect": oracle.disconnect,
    }
    for name, pause in history:
        now += pause
        oracle.pass_time(pause)
        actions.get(name, lambda: None)()
        match name:
            case "hear":
                note(table.heard(ALICE.peer_id, now))
            case "connect":
                note(table.connected(ALICE.peer_id, now))
            case "disconnect":
                note(table.disconnected(ALICE.peer_id, now))
            case "beacon":
                table.observe_beacon(beacon_of(ALICE, 1))
            case _:
                oracle.tick()
                for change in table.tick(now):
                    note(change)
                assert told == oracle.liveness
        record = table.get(ALICE.peer_id)
        assert (record.liveness if record is not None else "gone") == told
