"""The wire on one screen: every protocol id, message, limit and the framing.

A stream carries frames; a frame is one CBOR map (RFC 8949, deterministic encoding) with a `t` that
says which message it is; libp2p puts a 4-byte big-endian length before it. Unknown keys are ignored,
so that a newer peer can be understood; unknown `t` is a protocol violation.

Task stream: `request` → `accepted` at once → `delta`… → exactly one of `completed`, `failed`.
The end of the stream without either is a failure. Resetting the stream cancels.
"""

from __future__ import annotations

import io
import math
from contextlib import nullcontext
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar, cast

import cbor2
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from monai_node.registry.errors import ProtocolViolation
from monai_node.registry.garbage import uncollected

# --- protocols ------------------------------------------------------------------------------------
TASK_PROTOCOL = "/monai/task/1.0.0"
HELLO_PROTOCOL = "/monai/hello/1.0.0"
PROBE_PROTOCOL = "/monai/probe/1.0.0"
ADVERT_PROTOCOL = "/monai/advert/1.0.0"

# --- limits: everything from outside is bounded by a constant of this block -------------------------
FRAME_BYTES_MAX = 2 << 20  # a request with its conversation, or a result with what it calls
SMALL_FRAME_BYTES_MAX = 4 << 10  # a handshake, a probe, a refusal: a few fields of bounded length
INTRODUCTION_BYTES_MAX = 256 << 10  # an advert, a beacon and PEERS_PER_HELLO_MAX lines
REQUEST_BODY_BYTES_MAX = 1 << 20  # HTTP body: leaves room for what planning adds to a frame
STREAM_BUFFER_FRAMES = 256  # received and not yet read; a consumer this far behind is reset
ADVERT_BYTES_MAX = 64 << 10
BEACON_BYTES_MAX = 512
TEXT_CHARS_MAX = 1 << 20
MESSAGES_MAX = 1024
ARTIFACTS_MAX = 64
STOP_MAX = 16
SCHEMA_BYTES_MAX = 32 << 10
TOKENS_MAX = 32_768
LOGPROBS_MAX = 20  # likeliest tokens that are told beside each token
LOGPROBS_PER_DELTA_MAX = 256  # tokens: such a frame has about 350 KB at most
BIASES_MAX = 1024
MODELS_PER_NODE_MAX = 32
SKILLS_PER_NODE_MAX = 128
EXAMPLES_PER_SKILL_MAX = 16
PEERS_PER_HELLO_MAX = 64
TASKS_PER_PEER_MAX = 32  # queued and running for one calling peer at one provider
CBOR_DEPTH_MAX = 32
PLAIN_VALUES_MAX = 16_384  # in the tools, the schema or the calls of one frame: looked at in 10 ms

# --- times (seconds) ------------------------------------------------------------------------------
DIAL_SECONDS = 5.0
HELLO_SECONDS = 5.0
ACCEPT_SECONDS = 3.0  # `accepted` comes before any work, so that silence means lost
SEND_SECONDS = 5.0
DELTA_SECONDS = 0.04  # deltas of one stream are batched for this long
RUN_SECONDS_DEFAULT = 120.0
RUN_SECONDS_MAX = 3600.0
PROBE_PERIOD_SECONDS = 0.5
SUSPECT_AFTER_SECONDS = 2.0  # two missed one-second periods (facts: a frozen peer stays "connected")
GONE_AFTER_SECONDS = 10.0  # only then is a connection given up: a busy machine must not look dead
BEACON_TTL_SECONDS = 90.0


class Message(BaseModel):
    """A frozen message; unknown keys are dropped, wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    # A longer frame is refused before it is decoded: decoding costs far more than sending.
    bytes_max: ClassVar[int] = FRAME_BYTES_MAX


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """`value`, if JSON can hold it; ValueError for bytes, NaN, CBOR's undefined and the like, and for more
    than PLAIN_VALUES_MAX values."""
    _check_plain([value])
    return value


def _plains(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As `_plain`, of all of them together."""
    _check_plain(values)
    return values


def _check_plain(values: list[Any]) -> None:
    pending, count = list[object](values), 0
    while pending:
        value = pending.pop()
        match value:
            case str() | None | bool() | int():
                continue
            case dict():
                members = cast("dict[object, object]", value)
                if not all(isinstance(key, str) for key in members):
                    raise ValueError("only text names the fields of plain data")
                inner = list(members.values())
            case list():
                inner = cast("list[object]", value)
            case float() if math.isfinite(value):
                continue
            case _:
                raise ValueError("only what JSON can hold may stand in plain data")
        count += len(inner)
        if count > PLAIN_VALUES_MAX:
            raise ValueError(f"plain data should hold at most {PLAIN_VALUES_MAX} values")
        pending += inner


# Data that is handed on unread, to an engine or a client, as JSON.
Plain = Annotated[dict[str, Any], AfterValidator(_plain)]
_Plains = Annotated[list[dict[str, Any]], Field(max_length=128), AfterValidator(_plains)]
Id = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w.:@/+-]+$")]
Line = Annotated[str, Field(max_length=512)]
Text = Annotated[str, Field(max_length=TEXT_CHARS_MAX)]
TokenId = Annotated[str, Field(pattern=r"^\d{1,10}$")]


# --- what a task is given ---------------------------------------------------------------------------
class ChatMessage(Message):
    """One turn of a conversation. `extra` holds OpenAI's fields for tool calls, passed through."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text
    extra: Plain = Field(default_factory=dict[str, Any])

    @property
    def is_tool_turn(self) -> bool:
        """Whether it calls a tool or is the result of a call."""
        return self.role == "tool" or "tool_calls" in self.extra


class Artifact(Message):
    """The result of an earlier task, handed on as data."""

    task: Id
    text: Text


class TaskInput(Message):
    """What the task is about: its own words, the results it needs, the turns it needs.

    `text` is the task in words. `turns` are earlier turns of the conversation, only those needed. When
    `is_conversation`, `turns` is a whole conversation passed through and `text` only its last user
    message (for agents and logs of shape). When `is_completion`, `text` is to be gone on with as it is,
    without a chat template and with the control tokens that it names; `tokens` are the same in the model's
    own ids, instead of it.
    """

    text: Text
    artifacts: list[Artifact] = Field(default_factory=list[Artifact], max_length=ARTIFACTS_MAX)
    turns: list[ChatMessage] = Field(default_factory=list[ChatMessage], max_length=MESSAGES_MAX)
    is_conversation: bool = False
    is_completion: bool = False
    tokens: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        default_factory=list[int], max_length=TOKENS_MAX
    )


class Parameters(Message):
    """Sampling and shape of the result; None leaves the choice to the engine.

    `logprobs` likeliest tokens are told beside each token of the result; None: nothing is told. `logit_bias`
    is by the model's own token ids, in digits. With `echo` a completion begins with its prompt.
    """

    max_tokens: int | None = Field(default=None, ge=0, le=TOKENS_MAX)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(
        default_factory=list[str], max_length=STOP_MAX
    )
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    json_schema: Plain | None = None
    tools: _Plains = Field(default_factory=list[dict[str, Any]])
    tool_choice: str | Plain | None = None
    parallel_tool_calls: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=LOGPROBS_MAX)
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] = Field(
        default_factory=dict[str, float], max_length=BIASES_MAX
    )
    echo: bool = False


Label = Literal["local", "trusted", "open"]


class TaskRequest(Message):
    """Opens a task stream. `model` is the alias to serve it, for a node with several ("" for an agent);
    `prefix` is text of this result that was already shown: go on after it. The opener neither resets
    nor ends its side before the last frame, unless it wants no result."""

    t: Literal["request"] = "request"
    run: Id
    task: Id
    attempt: Id
    skill: Id
    model: Line = ""
    input: TaskInput
    parameters: Parameters = Parameters()
    remaining_ms: int = Field(ge=1, le=int(RUN_SECONDS_MAX * 1000))
    label: Label = "trusted"
    now: str | None = Field(default=None, max_length=40)  # ISO 8601 with offset: the caller's clock
    timezone: str | None = Field(default=None, max_length=64)
    locale: str | None = Field(default=None, max_length=35)
    traceparent: str | None = Field(default=None, max_length=64)
    prefix: Text = ""


# --- what comes back --------------------------------------------------------------------------------
class Usage(Message):
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)


class Timings(Message):
    """Milliseconds, by the provider's monotonic clock."""

    queue_ms: float = Field(default=0.0, ge=0)
    prefill_ms: float = Field(default=0.0, ge=0)
    generate_ms: float = Field(default=0.0, ge=0)


class TaskAccepted(Message):
    """Says that the request was read and admitted; `position` requests stand before it."""

    bytes_max = SMALL_FRAME_BYTES_MAX

    t: Literal["accepted"] = "accepted"
    attempt: Id
    position: int = Field(default=0, ge=0)


class LikelyToken(Message):
    """A token that could stand here, and the natural logarithm of its chance. `bytes` are its text's, which
    need not be whole characters; None where the server does not say."""

    token: Line
    logprob: float
    bytes: list[Annotated[int, Field(ge=0, le=255)]] | None = Field(default=None, max_length=512)


class TokenLogprob(Message):
    """A token of a result, as a `LikelyToken`, and the likeliest ones in its place. No logprob: it is the
    first of a prompt."""

    token: Line
    logprob: float | None = None
    bytes: list[Annotated[int, Field(ge=0, le=255)]] | None = Field(default=None, max_length=512)
    top: list[LikelyToken] = Field(default_factory=list[LikelyToken], max_length=LOGPROBS_MAX)


class TaskDelta(Message):
    """More text of the result; `logprobs` tells of its tokens where the request asks for that."""

    t: Literal["delta"] = "delta"
    attempt: Id
    text: Text
    logprobs: list[TokenLogprob] = Field(
        default_factory=list[TokenLogprob], max_length=LOGPROBS_PER_DELTA_MAX
    )


class TaskCompleted(Message):
    """Ends a stream well. `model` is the alias of what made the result, or the agent's skill id."""

    t: Literal["completed"] = "completed"
    attempt: Id
    finish_reason: Literal["stop", "length", "tool_calls"] = "stop"
    model: Line = ""
    model_digest: Line = ""
    usage: Usage = Usage()
    timings: Timings = Timings()
    tool_calls: _Plains = Field(default_factory=list[dict[str, Any]])


class TaskFailed(Message):
    """Ends a stream with a reason; `code` is one of `errors._FROM_WIRE`, others mean task_failed."""

    bytes_max = SMALL_FRAME_BYTES_MAX

    t: Literal["failed"] = "failed"
    attempt: Id
    code: Line
    message: Line
    retryable: bool = True


TaskEvent = TaskAccepted | TaskDelta | TaskCompleted | TaskFailed


# --- hello: proves membership, exchanges adverts and beacons ----------------------------------------
class Hello(Message):
    """First frame of the side that opens: a nonce, and nothing about itself before the other proved
    that it knows the mesh secret."""

    bytes_max = SMALL_FRAME_BYTES_MAX

    t: Literal["hello"] = "hello"
    version: int = 1
    mesh: Id  # public id of the mesh: a hash of its secret, or "open"
    nonce: bytes = Field(min_length=16, max_length=32)


class HelloProof(Message):
    """Answer and counter-answer: HMAC-SHA256 over both nonces and both peer ids (secret.Mesh.prove)."""

    bytes_max = SMALL_FRAME_BYTES_MAX

    t: Literal["proof"] = "proof"
    nonce: bytes = Field(min_length=16, max_length=32)
    proof: bytes = Field(min_length=32, max_length=32)


class HelloRefused(Message):
    bytes_max = SMALL_FRAME_BYTES_MAX

    t: Literal["refused"] = "refused"
    message: Line


class Introduction(Message):
    """Who I am: signed advert and beacon, and members that I know (addresses with peer ids)."""

    bytes_max = INTRODUCTION_BYTES_MAX

    t: Literal["introduction"] = "introduction"
    advert: bytes = Field(max_length=ADVERT_BYTES_MAX)
    beacon: bytes = Field(max_length=BEACON_BYTES_MAX)
    peers: list[Line] = Field(default_factory=list[str], max_length=PEERS_PER_HELLO_MAX)


# --- probe and advert pull --------------------------------------------------------------------------
class Probe(Message):
    bytes_max = SMALL_FRAME_BYTES_MAX

    t: Literal["probe"] = "probe"
    n: int = Field(ge=0)


class ProbeAnswer(Message):
    bytes_max = SMALL_FRAME_BYTES_MAX

    t: Literal["alive"] = "alive"
    n: int = Field(ge=0)
    beacon: bytes = Field(max_length=BEACON_BYTES_MAX)


class AdvertPull(Message):
    bytes_max = SMALL_FRAME_BYTES_MAX

    t: Literal["pull"] = "pull"
    digest: bytes = Field(min_length=32, max_length=32)


class AdvertAnswer(Message):
    bytes_max = ADVERT_BYTES_MAX + SMALL_FRAME_BYTES_MAX

    t: Literal["advert"] = "advert"
    advert: bytes = Field(max_length=ADVERT_BYTES_MAX)


# --- codec ------------------------------------------------------------------------------------------
AnyMessage = (
    TaskRequest
    | TaskAccepted
    | TaskDelta
    | TaskCompleted
    | TaskFailed
    | Hello
    | HelloProof
    | HelloRefused
    | Introduction
    | Probe
    | ProbeAnswer
    | AdvertPull
    | AdvertAnswer
)
_ADAPTER: TypeAdapter[AnyMessage] = TypeAdapter(Annotated[AnyMessage, Field(discriminator="t")])


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("tagged values are not part of the wire")


# cbor2 decodes dates, big numbers, regular expressions and shared references by itself; none of them
# is in our messages and some cost far more to decode than to send.
_CBOR_TAGS = (*range(38), 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
_REFUSED_TAGS: dict[int, Any] = dict.fromkeys(_CBOR_TAGS, _refuse_tag)
_LARGE_BYTES = 16 << 10  # below, the collector has nothing to do


def cbor(value: object) -> bytes:
    """Deterministic CBOR of plain maps, lists, text, bytes, numbers and None."""
    return cbor2.dumps(value, canonical=True)


def uncbor(data: bytes) -> Any:
    """The one value in `data`; ProtocolViolation for tags, indefinite lengths, depth beyond
    CBOR_DEPTH_MAX, duplicate keys, keys that are neither text nor bytes, and bytes after the value."""
    # Not `cbor2.loads`, which ignores whatever follows the first value: one record would then have many
    # encodings, and a digest of its bytes would not name it.
    source = io.BytesIO(data)
    try:
        with uncollected() if len(data) > _LARGE_BYTES else nullcontext():
            value = cbor2.CBORDecoder(
                source,
                max_depth=CBOR_DEPTH_MAX,
                allow_indefinite=False,
                allow_duplicate_keys=False,
                strict_hashable_types=True,
                semantic_decoders=_REFUSED_TAGS,
                tag_hook=_refuse_tag,
            ).decode()
    except (cbor2.CBORError, ValueError, RecursionError, OverflowError, TypeError) as error:
        raise ProtocolViolation("a frame that is not valid CBOR was received") from error
    if source.tell() != len(data):
        raise ProtocolViolation("a frame with bytes after its end was received")
    return value


def encode(message: Message) -> bytes:
    """One frame; ProtocolViolation when it would be longer than its kind may be."""
    frame = cbor(message.model_dump(exclude_none=True))
    _check_length(frame, message.bytes_max)
    return frame


_M = TypeVar("_M", bound=Message)


def decode(frame: bytes, *expected: type[_M]) -> _M:
    """The message in a frame, which must be one of `expected`; ProtocolViolation for anything else."""
    _check_length(frame, max(kind.bytes_max for kind in expected))
    try:
        message = _ADAPTER.validate_python(uncbor(frame))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the frame"
        # A tag that is not ours is quoted in it, and a peer may have written anything.
        raise ProtocolViolation(one_line(f"{where}: {first['msg']}"[:300])) from None
    if not isinstance(message, expected):
        wanted = " or ".join(kind.model_fields["t"].default for kind in expected)
        raise ProtocolViolation(f"received {message.t!r} where {wanted} was due")
    return message


def one_line(text: str) -> str:
    """Words of a peer, fit for a line of ours: every character that is not to be printed (controls,
    line breaks, directions) is a space."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _check_length(frame: bytes, limit: int) -> None:
    if len(frame) > limit:
        raise ProtocolViolation(f"a frame of {len(frame)} bytes exceeds {limit}")
