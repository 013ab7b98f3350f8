from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_node.mesh.identity import Identity
from monai_node.registry.advert import (
    Advert,
    Beacon,
    ModelInfo,
    Skill,
    digest_of,
    open_advert,
    open_beacon,
    seal,
)
from monai_node.registry.errors import ProtocolViolation
from monai_node.registry.ids import PeerId
from monai_node.registry.wire import (
    ADVERT_BYTES_MAX,
    BEACON_BYTES_MAX,
    EXAMPLES_PER_SKILL_MAX,
    SKILLS_PER_NODE_MAX,
    cbor,
    uncbor,
)

ALICE, MALLORY = Identity(bytes(32)), Identity(b"\x01" * 32)


def advert_of(identity: Identity = ALICE, **fields: Any) -> Advert:
    return Advert.model_validate(
        {
            "peer": identity.peer_id,
            "name": "alice",
            "models": [ModelInfo(alias="tiny", parameter_count=135_000_000, languages=["en"])],
            "skills": [Skill(id="chat", name="Chat", description="Talks.", examples=["Hi"], model="tiny")],
            **fields,
        }
    )


def beacon_of(identity: Identity = ALICE, **fields: Any) -> Beacon:
    return Beacon.model_validate({"peer": identity.peer_id, "seq": 1, "advert_digest": bytes(32), **fields})


def signed(payload: object, identity: Identity = ALICE, domain: bytes = b"monai/advert/1\0") -> bytes:
    """An envelope around anything, correctly signed."""
    raw = cbor(payload)
    return cbor({"p": raw, "s": identity.sign(domain + raw)})


def test_an_advert_comes_back_as_it_was_sealed() -> None:
    envelope = seal(advert_of(), ALICE.sign)
    opened = open_advert(envelope, ALICE.peer_id)
    assert opened.advert == advert_of()
    assert opened.envelope == envelope
    assert opened.digest == digest_of(envelope)


def test_a_beacon_comes_back_as_it_was_sealed() -> None:
    beacon = beacon_of(running=3, queued=2, admission="busy")
    assert open_beacon(seal(beacon, ALICE.sign), ALICE.peer_id) == beacon


def test_sealing_the_same_record_again_gives_the_same_bytes() -> None:
    assert seal(advert_of(), ALICE.sign) == seal(advert_of(), ALICE.sign)


@pytest.mark.parametrize("kind", ["advert", "beacon"])
def test_no_envelope_with_one_bit_flipped_verifies(kind: str) -> None:
    envelope = seal(advert_of() if kind == "advert" else beacon_of(), ALICE.sign)
    open_any = open_advert if kind == "advert" else open_beacon
    for bit in range(len(envelope) * 8):
        damaged = bytearray(envelope)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolViolation):
            open_any(bytes(damaged))


@settings(deadline=None)
@given(st.data())
def test_no_cut_or_lengthened_envelope_verifies(data: st.DataObject) -> None:
    envelope = seal(beacon_of(), ALICE.sign)
    cut = data.draw(st.integers(0, len(envelope) - 1))
    tail = data.draw(st.binary(min_size=1, max_size=8))
    for damaged in (envelope[:cut], envelope + tail):
        with pytest.raises(ProtocolViolation):
            open_beacon(damaged)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_and_nothing_worse(data: bytes) -> None:
    for open_any in (open_advert, open_beacon):
        with pytest.raises(ProtocolViolation):
            open_any(data)


def test_a_record_signed_with_another_key_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="signature is wrong"):
        open_advert(seal(advert_of(ALICE), MALLORY.sign))
    with pytest.raises(ProtocolViolation, match="signature is wrong"):
        open_beacon(seal(beacon_of(ALICE), MALLORY.sign))


def test_a_valid_record_of_somebody_else_does_not_speak_for_its_sender() -> None:
    with pytest.raises(ProtocolViolation, match="does not speak for"):
        open_advert(seal(advert_of(ALICE), ALICE.sign), MALLORY.peer_id)
    with pytest.raises(ProtocolViolation, match="does not speak for"):
        open_beacon(seal(beacon_of(ALICE), ALICE.sign), MALLORY.peer_id)


def test_a_signature_over_one_kind_of_record_is_worth_nothing_for_the_other() -> None:
    fields = beacon_of().model_dump() | {"kind": "advert", "name": "alice"}
    as_advert = signed(fields, domain=b"monai/advert/1\0")
    as_beacon = signed(fields, domain=b"monai/beacon/1\0")
    assert open_advert(as_advert).advert.name == "alice"
    with pytest.raises(ProtocolViolation, match="signature is wrong"):
        open_advert(as_beacon)
    with pytest.raises(ProtocolViolation, match="signature is wrong"):
        open_beacon(as_advert)
    with pytest.raises(ProtocolViolation, match="signature is wrong"):
        open_advert(signed(fields, domain=b""))


def test_an_advert_of_an_older_node_says_nothing_of_price_and_speed() -> None:
    fields = advert_of().model_dump()
    for skill in fields["skills"]:
        del skill["price"]
    for model in fields["models"]:
        del model["speed"]
    opened = open_advert(signed(fields), ALICE.peer_id).advert
    assert {skill.price for skill in opened.skills} == {0.0}
    assert all(model.speed is None for model in opened.models)


def test_keys_of_a_newer_node_are_kept() -> None:
    fields = advert_of().model_dump()
    fields["colour"] = "blue"
    fields["skills"][0]["colour"] = {"shade": 1}
    opened = open_advert(signed(fields), ALICE.peer_id).advert
    assert opened.model_dump() == fields
    assert open_advert(seal(opened, ALICE.sign)).advert == opened


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "beacon"},
        {"name": "x" * 129},
        {"name": 5},
        {"roles": ["r"] * 9},
        {"addrs": ["a"] * 17},
        {"models": [{"alias": "a", "n_ctx": -1}]},
        {"models": [{"alias": "a", "n_ctx": 2**63}]},
        {"models": [{"alias": "a"}] * 33},
        {"models": [{"alias": ""}]},
        {"skills": [{"id": "a b", "name": "", "description": ""}]},
        {"skills": [{"id": "a", "name": "", "description": "", "price": -0.1}]},
        {"skills": [{"id": "a", "name": "", "description": "", "price": float("nan")}]},
        {"skills": [{"id": "a", "name": "", "description": "", "price": 1e300}]},
        {"models": [{"alias": "a", "speed": {"prefill_tokens_per_second": float("inf")}}]},
        {"models": [{"alias": "a", "speed": {"decode": [{"streams": 0, "tokens_per_second": 1.0}]}}]},
        {"models": [{"alias": "a", "speed": {"load_seconds": -1.0}}]},
        {"skills": [{"id": "a", "name": "", "description": "x" * 2001}]},
        {"skills": [{"id": "a", "name": "", "description": "", "examples": ["e"] * 17}]},
        {"skills": [{"id": "a", "name": "", "description": "", "is_general": 1}]},
    ],
    ids=repr,
)
def test_an_advert_with_a_field_out_of_bounds_is_refused_though_well_signed(fields: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolation, match="an advert with a bad"):
        open_advert(signed(advert_of().model_dump() | fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"seq": -1},
        {"seq": 2**63},
        {"seq": 1.0},
        {"advert_digest": bytes(31)},
        {"advert_digest": "x" * 32},
        {"admission": "asleep"},
        {"ttl_seconds": 0.0},
        {"ttl_seconds": 3601.0},
        {"ttl_seconds": float("nan")},
        {"running": -1},
    ],
    ids=repr,
)
def test_a_beacon_with_a_field_out_of_bounds_is_refused_though_well_signed(fields: dict[str, Any]) -> None:
    envelope = signed(beacon_of().model_dump() | fields, domain=b"monai/beacon/1\0")
    with pytest.raises(ProtocolViolation, match="a beacon with a bad"):
        open_beacon(envelope)


@pytest.mark.parametrize(
    "peer",
    [None, 5, "", "mesh", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", ALICE.peer_id + " ", "x" * 4000],
    ids=repr,
)
def test_an_advert_of_a_peer_whose_key_is_not_in_its_id_is_refused(peer: object) -> None:
    with pytest.raises(ProtocolViolation, match=r"peer"):
        open_advert(signed(advert_of().model_dump() | {"peer": peer}))


@pytest.mark.parametrize(
    "envelope",
    [
        cbor({}),
        cbor([]),
        cbor(None),
        cbor({"p": b""}),
        cbor({"p": b"", "s": b""}),
        cbor({"p": "text", "s": b""}),
        cbor({"p": cbor([]), "s": bytes(64)}),
        cbor({"p": cbor(advert_of().model_dump()), "s": b""}),
        cbor({"p": cbor(advert_of().model_dump()), "s": bytes(64)}),
        cbor({"p": cbor(advert_of().model_dump()), "s": bytes(65)}),
    ],
    ids=repr,
)
def test_an_envelope_without_payload_or_signature_is_refused(envelope: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        open_advert(envelope)


def test_an_envelope_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolViolation, match=f"{ADVERT_BYTES_MAX} is the most"):
        open_advert(b"\xff" * (ADVERT_BYTES_MAX + 1))
    with pytest.raises(ProtocolViolation, match=f"{BEACON_BYTES_MAX} is the most"):
        open_beacon(b"\xff" * (BEACON_BYTES_MAX + 1))


def test_an_advert_that_is_too_long_cannot_be_sealed() -> None:
    skill = Skill(id="s", name="s", description="x" * 2000, examples=["x" * 2000] * EXAMPLES_PER_SKILL_MAX)
    with pytest.raises(ValueError, match=f"{ADVERT_BYTES_MAX} is the most"):
        seal(advert_of(skills=[skill] * SKILLS_PER_NODE_MAX), ALICE.sign)


def test_the_longest_beacon_fits_its_limit() -> None:
    most = 2**63 - 1
    beacon = beacon_of(
        seq=most,
        advert_digest=b"\xff" * 32,
        running=most,
        queued=most,
        admission="accepting",  # the longest of the four
        ttl_seconds=3599.000001,
    )
    envelope = seal(beacon, ALICE.sign)
    assert len(envelope) <= BEACON_BYTES_MAX
    assert open_beacon(envelope) == beacon


def test_what_is_verified_is_what_was_received_and_not_a_re_encoding() -> None:
    payload = cbor(beacon_of().model_dump())
    key = b"\x63seq\x01"  # the same map with its number written in two bytes
    loose = payload.replace(key, b"\x63seq\x18\x01")
    assert uncbor(loose) == uncbor(payload)
    assert loose != payload
    signature = ALICE.sign(b"monai/beacon/1\0" + loose)
    assert open_beacon(cbor({"p": loose, "s": signature})).seq == 1
    with pytest.raises(ProtocolViolation, match="signature is wrong"):
        open_beacon(cbor({"p": payload, "s": signature}))


def test_the_peer_of_an_advert_is_the_one_that_signed() -> None:
    opened = open_advert(seal(advert_of(MALLORY), MALLORY.sign))
    assert PeerId(opened.advert.peer) == MALLORY.peer_id
