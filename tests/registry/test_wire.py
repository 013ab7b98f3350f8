"""Every message goes there and back; everything else is a ProtocolViolation."""

from __future__ import annotations

import math
from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_node.registry import wire
from monai_node.registry.errors import ProtocolViolation
from monai_node.registry.wire import (
    ADVERT_BYTES_MAX,
    BEACON_BYTES_MAX,
    CBOR_DEPTH_MAX,
    FRAME_BYTES_MAX,
    PEERS_PER_HELLO_MAX,
    PLAIN_VALUES_MAX,
    SMALL_FRAME_BYTES_MAX,
    AdvertAnswer,
    AdvertPull,
    AnyMessage,
    Artifact,
    ChatMessage,
    Hello,
    HelloProof,
    HelloRefused,
    Introduction,
    LikelyToken,
    Message,
    Parameters,
    Probe,
    ProbeAnswer,
    TaskAccepted,
    TaskCompleted,
    TaskDelta,
    TaskFailed,
    TaskInput,
    TaskRequest,
    Timings,
    TokenLogprob,
    Usage,
    cbor,
    decode,
    encode,
    uncbor,
)

KINDS: list[type[AnyMessage]] = [
    TaskRequest,
    TaskAccepted,
    TaskDelta,
    TaskCompleted,
    TaskFailed,
    Hello,
    HelloProof,
    HelloRefused,
    Introduction,
    Probe,
    ProbeAnswer,
    AdvertPull,
    AdvertAnswer,
]

# --- any message ----------------------------------------------------------------------------------
ids = st.text("abcXYZ019_.:@/+-", min_size=1, max_size=128)
words = st.text(max_size=60)
nonces = st.binary(min_size=16, max_size=32)
hashes = st.binary(min_size=32, max_size=32)
milliseconds = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
counts = st.integers(min_value=0, max_value=2**63 - 1)


def plain_children(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(children, max_size=3) | st.dictionaries(words, children, max_size=3)


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    plain_children,
    max_leaves=8,
)
plain = st.dictionaries(words, plain_values, max_size=3)
requests = st.builds(
    TaskRequest,
    run=ids,
    task=ids,
    attempt=ids,
    skill=ids,
    model=words,
    input=st.builds(
        TaskInput,
        text=words,
        artifacts=st.lists(st.builds(Artifact, task=ids, text=words), max_size=2),
        turns=st.lists(
            st.builds(
                ChatMessage,
                role=st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
                content=words,
                extra=plain,
            ),
            max_size=2,
        ),
        is_conversation=st.booleans(),
    ),
    parameters=st.builds(
        Parameters,
        max_tokens=st.none() | st.integers(1, 32_768),
        temperature=st.none() | st.floats(0, 2),
        seed=st.none() | st.integers(-(2**63), 2**63 - 1),
        stop=st.lists(st.text(min_size=1, max_size=9), max_size=3),
        json_schema=st.none() | plain,
        tools=st.lists(plain, max_size=2),
        tool_choice=st.none() | words | plain,
    ),
    remaining_ms=st.integers(1, 3_600_000),
    label=st.sampled_from(["local", "trusted", "open"]),
    now=st.none() | st.text(max_size=40),
    prefix=words,
)
messages: st.SearchStrategy[AnyMessage] = st.one_of(
    requests,
    st.builds(TaskAccepted, attempt=ids, position=counts),
    st.builds(TaskDelta, attempt=ids, text=words),
    st.builds(
        TaskCompleted,
        attempt=ids,
        finish_reason=st.sampled_from(["stop", "length", "tool_calls"]),
        model=words,
        usage=st.builds(Usage, prompt_tokens=counts, completion_tokens=counts),
        timings=st.builds(Timings, queue_ms=milliseconds, prefill_ms=milliseconds, generate_ms=milliseconds),
        tool_calls=st.lists(plain, max_size=2),
    ),
    st.builds(TaskFailed, attempt=ids, code=words, message=words, retryable=st.booleans()),
    st.builds(Hello, version=st.integers(0, 9), mesh=ids, nonce=nonces),
    st.builds(HelloProof, nonce=nonces, proof=hashes),
    st.builds(HelloRefused, message=words),
    st.builds(
        Introduction, advert=st.binary(max_size=99), beacon=st.binary(max_size=99), peers=st.lists(words)
    ).filter(lambda message: len(message.peers) <= PEERS_PER_HELLO_MAX),
    st.builds(Probe, n=counts),
    st.builds(ProbeAnswer, n=counts, beacon=st.binary(max_size=BEACON_BYTES_MAX)),
    st.builds(AdvertPull, digest=hashes),
    st.builds(AdvertAnswer, advert=st.binary(max_size=99)),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages)
def test_every_message_comes_back_as_it_was_sent(message: AnyMessage) -> None:
    frame = encode(message)
    assert decode(frame, type(message)) == message
    assert encode(decode(frame, type(message))) == frame


def test_the_messages_above_are_all_that_the_wire_knows() -> None:
    known = {
        name
        for name in vars(wire)
        if isinstance(kind := getattr(wire, name), type) and issubclass(kind, Message)
    }
    parts = {"Message", "ChatMessage", "Artifact", "TaskInput", "Parameters", "Usage", "Timings"}
    parts |= {"LikelyToken", "TokenLogprob"}
    assert {kind.__name__ for kind in KINDS} == known - parts
    assert len({kind.model_fields["t"].default for kind in KINDS}) == len(KINDS)


@settings(deadline=None)
@given(messages, st.dictionaries(st.text(min_size=9, max_size=20), plain_values, max_size=3))
def test_keys_of_a_newer_peer_are_ignored(message: AnyMessage, news: dict[str, Any]) -> None:
    fields = {**{f"new-{key}": value for key, value in news.items()}, **uncbor(encode(message))}
    assert decode(cbor(fields), type(message)) == message


# --- what is refused ------------------------------------------------------------------------------
GOOD = {"t": "probe", "n": 1}


@pytest.mark.parametrize(
    "fields",
    [
        GOOD | {"t": "unheard-of"},
        GOOD | {"t": "x" * 3000},
        GOOD | {"t": 7},
        GOOD | {"t": ["probe"]},
        GOOD | {"t": None},
        {"n": 1},
        {"t": "probe"},
        GOOD | {"n": "1"},
        GOOD | {"n": 1.0},
        GOOD | {"n": True},
        GOOD | {"n": -1},
        GOOD | {"n": [1]},
        [],
        ["probe", 1],
        "probe",
        b"probe",
        17,
        None,
        math.nan,
    ],
    ids=repr,
)
def test_a_frame_that_is_no_message_is_refused_in_a_short_sentence(fields: object) -> None:
    with pytest.raises(ProtocolViolation) as refused:
        decode(cbor(fields), Probe)
    assert len(refused.value.message) <= 300


def test_a_message_that_is_not_due_is_refused_by_name() -> None:
    with pytest.raises(ProtocolViolation, match="received 'probe' where accepted or delta was due"):
        decode(encode(Probe(n=1)), TaskAccepted, TaskDelta)


MAP_OPEN, MAP_END = b"\xbf", b"\xff"
NAN = b"\xf9\x7e\x00"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(cbor(GOOD)[:-1], id="cut"),
        pytest.param(cbor(GOOD) + b"\x00", id="one byte after the end"),
        pytest.param(cbor(GOOD) * 2, id="two frames in one"),
        pytest.param(cbor(GOOD) + b" " * 9000, id="a tail longer than a read"),
        pytest.param(MAP_OPEN + b"\x61n\x01" + MAP_END, id="map of indefinite length"),
        pytest.param(b"\x9f\x01\xff", id="list of indefinite length"),
        pytest.param(b"\x7f\x61a\x61b\xff", id="text of indefinite length"),
        pytest.param(b"\x5f\x41a\xff", id="bytes of indefinite length"),
        pytest.param(b"\xa2\x61n\x01\x61n\x02", id="a key twice"),
        pytest.param(b"\xa1" + NAN + b"\x01", id="NaN as a key"),
        pytest.param(b"\xa1\x01\x01", id="number as a key"),
        pytest.param(b"\xa1\x81\x01\x01", id="list as a key"),
        pytest.param(b"\xa1\xf6\x01", id="null as a key"),
        pytest.param(b"\x81" * (CBOR_DEPTH_MAX + 1) + b"\x01", id="deeper than allowed"),
        pytest.param(b"\x81" * 100_000 + b"\x01", id="deep enough for a stack"),
        pytest.param(b"\xa1\x61a" * 100_000 + b"\x01", id="deep maps"),
        pytest.param(b"\xd8\x1c\x81\xd8\x1d\x00", id="a list that holds itself"),
        pytest.param(b"\x61\xff", id="text that is not UTF-8"),
        pytest.param(b"\x63\xed\xa0\x80", id="half of a surrogate pair"),
        pytest.param(b"\x1c", id="reserved length"),
        pytest.param(b"\xff", id="an end without a beginning"),
        pytest.param(b"\x9b" + b"\x7f" + b"\xff" * 7, id="a list of 2**63 items"),
        pytest.param(b"\x7b" + b"\x7f" + b"\xff" * 7, id="a text of 2**63 bytes"),
    ],
)
def test_cbor_outside_the_subset_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        uncbor(data)


@pytest.mark.parametrize("tag", [0, 1, 2, 4, 5, 25, 28, 29, 30, 35, 36, 37, 256, 258, 1004, 55799, 2**40])
@pytest.mark.parametrize("value", ["", b"\x01", 1, [1, 2], {}], ids=repr)
def test_every_tag_is_refused(tag: int, value: object) -> None:
    with pytest.raises(ProtocolViolation):
        uncbor(cbor2.dumps(cbor2.CBORTag(tag, value)))


def test_the_tags_that_the_decoder_knows_are_refused_one_by_one() -> None:
    """A tag with a built-in decoder never reaches `tag_hook`: each needs an entry of its own."""
    for tag in range(70_000):
        head = b"\xd9" + tag.to_bytes(2, "big") if tag < 2**16 else b"\xda" + tag.to_bytes(4, "big")
        with pytest.raises(ProtocolViolation):
            uncbor(head + b"\x60")


def test_depth_up_to_the_limit_is_allowed() -> None:
    value: Any = uncbor(b"\x81" * CBOR_DEPTH_MAX + b"\x01")
    for _ in range(CBOR_DEPTH_MAX):
        (value,) = value
    assert value == 1


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_protocol_violation(data: bytes) -> None:
    for kind in KINDS:
        try:
            decode(data, kind)
        except ProtocolViolation:
            continue


@settings(deadline=None)
@given(messages, st.data())
def test_a_damaged_frame_raises_nothing_but_a_protocol_violation(
    message: AnyMessage, data: st.DataObject
) -> None:
    frame = bytearray(encode(message))
    at = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[at // 8] ^= 1 << at % 8
    try:
        decode(bytes(frame), *KINDS)
    except ProtocolViolation:
        return


def request(extra: dict[str, Any] | None = None) -> TaskRequest:
    turn = ChatMessage(role="user", content="hello", extra=extra or {})
    return TaskRequest(
        run="r",
        task="t",
        attempt="a",
        skill="chat",
        input=TaskInput(text="hello", turns=[turn]),
        remaining_ms=1,
    )


@pytest.mark.parametrize(
    "foreign",
    [NAN, b"\xf9\x7c\x00", b"\xf7", b"\xf0", b"\xf8\xff", b"\x41a", b"\xa1\x41a\x01"],
    ids=["NaN", "infinity", "undefined", "simple", "simple of two bytes", "bytes", "bytes as a key"],
)
@pytest.mark.parametrize("around", [b"%s", b"\x81%s", b"\xa1\x61k%s"], ids=["bare", "in a list", "in a map"])
def test_data_that_is_handed_on_as_json_holds_only_what_json_can(foreign: bytes, around: bytes) -> None:
    marker = encode(request({"field": "here"}))
    frame = marker.replace(b"\x64here", around % foreign)
    assert frame != marker
    with pytest.raises(ProtocolViolation, match=r"JSON|text names"):
        decode(frame, TaskRequest)


def test_nulls_in_data_that_is_handed_on_are_kept() -> None:
    extra = {"default": None, "enum": [None, {"a": None}]}
    assert decode(encode(request(extra)), TaskRequest).input.turns[0].extra == extra


# --- length ---------------------------------------------------------------------------------------
def test_a_frame_as_long_as_allowed_passes_and_one_byte_more_does_not() -> None:
    room = FRAME_BYTES_MAX - len(cbor({**GOOD, "t": "delta", "pad": b"x" * 70_000})) + 70_000
    frame = cbor({**GOOD, "t": "delta", "pad": b"x" * room})
    assert len(frame) == FRAME_BYTES_MAX
    with pytest.raises(ProtocolViolation, match="attempt"):
        decode(frame, TaskDelta)
    with pytest.raises(ProtocolViolation, match="exceeds"):
        decode(frame + b"x", TaskDelta)


def test_a_request_that_is_too_long_is_refused_by_its_sender() -> None:
    text = "ü" * (FRAME_BYTES_MAX // 4)
    long = request().model_copy(update={"prefix": text, "input": TaskInput(text=text)})
    assert len(encode(long.model_copy(update={"prefix": ""}))) < FRAME_BYTES_MAX
    with pytest.raises(ProtocolViolation, match="exceeds"):
        encode(long)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_frame_longer_than_its_kind_may_be_is_refused_before_it_is_decoded(kind: type[AnyMessage]) -> None:
    with pytest.raises(ProtocolViolation, match=f"exceeds {kind.bytes_max}"):
        decode(b"\xff" * (kind.bytes_max + 1), kind)
    with pytest.raises(ProtocolViolation, match="not valid CBOR"):
        decode(b"\xff" * kind.bytes_max, kind)


@pytest.mark.parametrize(
    "message",
    [
        Hello(mesh="m" * 128, nonce=bytes(32)),
        HelloProof(nonce=bytes(32), proof=bytes(32)),
        HelloRefused(message="𝕏" * 512),
        TaskAccepted(attempt="a" * 128, position=2**63 - 1),
        TaskFailed(attempt="a" * 128, code="𝕏" * 64, message="𝕏" * 512),
        ProbeAnswer(n=2**63 - 1, beacon=bytes(BEACON_BYTES_MAX)),
        AdvertAnswer(advert=bytes(ADVERT_BYTES_MAX)),
        Introduction(
            advert=bytes(ADVERT_BYTES_MAX),
            beacon=bytes(BEACON_BYTES_MAX),
            peers=["𝕏" * 512] * PEERS_PER_HELLO_MAX,
        ),
    ],
    ids=lambda message: type(message).__name__,
)
def test_the_longest_message_of_each_small_kind_fits_its_frame(message: AnyMessage) -> None:
    assert decode(encode(message), type(message)) == message
    assert len(encode(message)) > SMALL_FRAME_BYTES_MAX // 64


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Hello, {"t": "hello", "mesh": "m", "nonce": bytes(15)}),
        (Hello, {"t": "hello", "mesh": "m", "nonce": bytes(33)}),
        (Hello, {"t": "hello", "mesh": "", "nonce": bytes(16)}),
        (Hello, {"t": "hello", "mesh": "a b", "nonce": bytes(16)}),
        (Hello, {"t": "hello", "mesh": "a\n", "nonce": bytes(16)}),
        (HelloProof, {"t": "proof", "nonce": bytes(16), "proof": bytes(31)}),
        (AdvertPull, {"t": "pull", "digest": bytes(33)}),
        (ProbeAnswer, {"t": "alive", "n": 1, "beacon": bytes(BEACON_BYTES_MAX + 1)}),
        (Introduction, {"t": "introduction", "advert": b"", "beacon": b"", "peers": ["a"] * 65}),
        (TaskFailed, {"t": "failed", "attempt": "a", "code": "c", "message": "m" * 513}),
        (TaskCompleted, {"t": "completed", "attempt": "a", "timings": {"queue_ms": math.inf}}),
        (TaskCompleted, {"t": "completed", "attempt": "a", "usage": {"prompt_tokens": -1}}),
        (TaskDelta, {"t": "delta", "attempt": "a", "text": "", "logprobs": [{"token": "x"}] * 257}),
        (TaskDelta, {"t": "delta", "attempt": "a", "text": "", "logprobs": [{"token": "x", "bytes": [256]}]}),
        (TaskRequest, uncbor(encode(request())) | {"parameters": {"logprobs": 21}}),
        (TaskRequest, uncbor(encode(request())) | {"parameters": {"logit_bias": {"word": 1.0}}}),
        (TaskRequest, uncbor(encode(request())) | {"remaining_ms": 0}),
        (TaskRequest, uncbor(encode(request())) | {"remaining_ms": 3_600_001}),
        (TaskRequest, uncbor(encode(request())) | {"label": "public"}),
        (TaskRequest, uncbor(encode(request())) | {"input": {"text": "x", "artifacts": [{}]}}),
        (TaskRequest, uncbor(encode(request())) | {"parameters": {"temperature": math.nan}}),
        (TaskRequest, uncbor(encode(request())) | {"parameters": {"tools": [{}] * 129}}),
    ],
)
def test_fields_beyond_their_bounds_are_refused(kind: type[AnyMessage], fields: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolation):
        decode(cbor(fields), kind)


def test_a_refused_frame_is_described_in_one_printable_line() -> None:
    with pytest.raises(ProtocolViolation) as raised:
        decode(cbor({"t": "x\n2026 ERROR forged \x1b[2J\u202e"}), Hello)
    assert raised.value.message.isprintable()


def test_a_token_without_a_chance_of_its_own_goes_there_and_back() -> None:
    other = LikelyToken(token="Ho", logprob=-2.0, bytes=[72, 111])
    told = [TokenLogprob(token="Hi", logprob=None), TokenLogprob(token="!", logprob=-0.5, top=[other])]
    delta = TaskDelta(attempt="a", text="Hi!", logprobs=told)
    assert decode(encode(delta), TaskDelta) == delta


def test_the_calls_of_one_result_hold_a_bounded_number_of_values() -> None:
    half: dict[str, Any] = {"name": "f", "arguments": {"a": [[]] * (PLAIN_VALUES_MAX // 2)}}
    message = TaskCompleted(attempt="a", tool_calls=[half])
    assert decode(encode(message), TaskCompleted) == message
    frame = cbor({"t": "completed", "attempt": "a", "tool_calls": [half, half]})
    with pytest.raises(ProtocolViolation, match="at most"):
        decode(frame, TaskCompleted)
