"""What a node says of itself: the advert (slow, large) and the beacon (frequent, small), both signed.

An envelope is deterministic CBOR `{p: payload bytes, s: signature}`. The bytes received are
verified, never a re-encoding, with the key inside the peer id that the payload names; only then are they
taken for a record. Unknown keys are kept, so that a newer node's advert survives being handed on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from monai_node.registry.errors import ProtocolViolation
from monai_node.registry.ids import PeerId, public_key_of
from monai_node.registry.wire import (
    ADVERT_BYTES_MAX,
    BEACON_BYTES_MAX,
    BEACON_TTL_SECONDS,
    EXAMPLES_PER_SKILL_MAX,
    MODELS_PER_NODE_MAX,
    SKILLS_PER_NODE_MAX,
    Id,
    cbor,
    one_line,
    uncbor,
)

Sign = Callable[[bytes], bytes]
Words = Annotated[str, Field(max_length=2000)]
# Shown to people in lists, events and headers: what a peer calls itself cannot break the line.
Name = Annotated[str, Field(max_length=128), AfterValidator(one_line)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
# Claims above these are noise: no machine reads or writes a million tokens a second for one task.
PRICE_MAX = 1e6
_RATE_MAX = 1e6
_SECONDS_MAX = 86_400.0
Rate = Annotated[float, Field(gt=0, le=_RATE_MAX)]
Seconds = Annotated[float, Field(ge=0, le=_SECONDS_MAX)]
Price = Annotated[float, Field(ge=0, le=PRICE_MAX)]

# Domain tags: a signature over one kind of record is worth nothing for the other.
_ADVERT_DOMAIN = b"monai/advert/1\0"
_BEACON_DOMAIN = b"monai/beacon/1\0"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)


class Pace(_Record):
    """What each of so many tasks at once is written at, in tokens a second."""

    streams: Annotated[int, Field(ge=1, le=1024)]
    tokens_per_second: Rate


class Speed(_Record):
    """How quick a node says that a model of its is; `age_seconds` is how old that was when it was said.

    Batching on a processor gives what the processor and the quantisation allow, so the pace is told for
    several numbers of tasks at once. `load_seconds` are what the first task waits when not `is_resident`.
    """

    prefill_tokens_per_second: Rate | None = None
    decode: list[Pace] = Field(default_factory=list[Pace], max_length=8)
    load_seconds: Seconds = 0.0
    is_resident: bool = True
    age_seconds: Seconds = 0.0


class ModelInfo(_Record):
    """A GGUF (or a model behind a URL) that this node serves.

    Sizes are computed from the file's tensors; name, licence and languages are the author's claims.
    """

    alias: Id
    digest: Name = ""  # "sha256:…" of the whole file, or "quick:…" (forgeable) until that is known
    architecture: Name = ""
    parameter_count: Count = 0
    quantisation: Name = ""
    n_ctx: Count = 0
    size_bytes: Count = 0
    licence: Name = ""
    languages: list[Name] = Field(default_factory=list[str], max_length=64)
    template_digest: Name = ""
    features: list[Name] = Field(default_factory=list[str], max_length=32)  # e.g. "tools"
    speed: Speed | None = None


class Skill(_Record):
    """What a node is good at, in A2A's five fields, and what serves it here.

    `model` is the alias that serves it; empty for an agent. `is_general` marks a chat skill that may
    answer whatever no narrower skill claims. `slots` is how many tasks are done at once there; 0 when
    the node does not say. `price`, in the mesh's own unit, is for 1,000 tokens of a model's result, or for
    one task of an agent; 0 is free.
    """

    id: Id
    name: Name
    description: Words
    tags: list[Name] = Field(default_factory=list[str], max_length=32)
    examples: list[Words] = Field(default_factory=list[str], max_length=EXAMPLES_PER_SKILL_MAX)
    input_modes: list[Name] = Field(default_factory=lambda: ["text/plain"], max_length=16)
    output_modes: list[Name] = Field(default_factory=lambda: ["text/plain"], max_length=16)
    model: Name = ""
    is_general: bool = False
    is_idempotent: bool = True
    slots: Count = 0
    price: Price = 0.0


class Advert(_Record):
    """Everything about a node that changes rarely. Pulled by digest, at most 64 KiB."""

    kind: Literal["advert"] = "advert"
    peer: Id
    name: Name = ""
    roles: list[Name] = Field(default_factory=list[str], max_length=8)
    addrs: list[Name] = Field(default_factory=list[str], max_length=16)
    models: list[ModelInfo] = Field(default_factory=list[ModelInfo], max_length=MODELS_PER_NODE_MAX)
    skills: list[Skill] = Field(default_factory=list[Skill], max_length=SKILLS_PER_NODE_MAX)
    software: Name = ""


Admission = Literal["accepting", "busy", "paused", "leaving"]


class Beacon(_Record):
    """A node's pulse, at most 512 bytes. Highest `seq` wins, for ever: it is kept on disk by its node.

    Freshness is `ttl_seconds` from receipt by the receiver's clock; no wall clock is compared.
    """

    kind: Literal["beacon"] = "beacon"
    peer: Id
    seq: Count
    advert_digest: bytes = Field(min_length=32, max_length=32)
    running: Count = 0
    queued: Count = 0
    admission: Admission = "accepting"
    ttl_seconds: Annotated[float, Field(gt=0, le=3600)] = BEACON_TTL_SECONDS


@dataclass(frozen=True, slots=True)
class Signed:
    """An advert as received: the parsed record beside the exact bytes that were signed."""

    advert: Advert
    envelope: bytes
    digest: bytes


def digest_of(envelope: bytes) -> bytes:
    """SHA-256 of the envelope: how a beacon names the advert it belongs to."""
    return hashlib.sha256(envelope).digest()


def seal(record: Advert | Beacon, sign: Sign) -> bytes:
    """The signed envelope; ValueError when it is larger than its kind may be."""
    is_advert = isinstance(record, Advert)
    domain, limit = (_ADVERT_DOMAIN, ADVERT_BYTES_MAX) if is_advert else (_BEACON_DOMAIN, BEACON_BYTES_MAX)
    payload = cbor(record.model_dump())
    envelope = cbor({"p": payload, "s": sign(domain + payload)})
    if len(envelope) > limit:
        raise ValueError(f"this node's {record.kind} has {len(envelope)} bytes; {limit} is the most")
    return envelope


def open_advert(envelope: bytes, expected: PeerId | None = None) -> Signed:
    """The advert in an envelope, signature verified; ProtocolViolation if anything is off.

    `expected` is the peer it must speak for, when the caller knows.
    """
    advert = _open(envelope, Advert, _ADVERT_DOMAIN, ADVERT_BYTES_MAX, expected)
    return Signed(advert, envelope, digest_of(envelope))


def open_beacon(envelope: bytes, expected: PeerId | None = None) -> Beacon:
    """The beacon in an envelope, signature verified; ProtocolViolation if anything is off."""
    return _open(envelope, Beacon, _BEACON_DOMAIN, BEACON_BYTES_MAX, expected)


def _map(value: object) -> dict[object, object]:
    return cast("dict[object, object]", value) if isinstance(value, dict) else {}


_R = TypeVar("_R", Advert, Beacon)


def _open(envelope: bytes, kind: type[_R], domain: bytes, limit: int, expected: PeerId | None) -> _R:
    name = "an advert" if kind is Advert else "a beacon"
    if len(envelope) > limit:
        raise ProtocolViolation(f"{name} of {len(envelope)} bytes; {limit} is the most")
    outer = _map(uncbor(envelope))
    payload, signature = outer.get("p"), outer.get("s")
    if not isinstance(payload, bytes) or not isinstance(signature, bytes):
        raise ProtocolViolation(f"{name} without payload and signature")
    claimed = _map(uncbor(payload))
    peer = claimed.get("peer")
    if not isinstance(peer, str) or (expected is not None and peer != expected):
        raise ProtocolViolation(f"{name} that does not speak for the peer that sent it")
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key_of(PeerId(peer)))
        key.verify(signature, domain + payload)
        return kind.model_validate(claimed)
    except InvalidSignature:
        raise ProtocolViolation(f"{name} whose signature is wrong") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProtocolViolation(f"{name} with a bad {where}: {first['msg']}"[:300]) from None
    except ValueError:
        raise ProtocolViolation(f"{name} with a peer id that is not an Ed25519 key") from None
