"""Every error that crosses a room, split by who is at fault.

MonaiError
├── CallerError            the request is wrong; asking another peer cannot help
│   ├── InvalidRequest         400  malformed, out of bounds, contradictory
│   ├── ContextLengthExceeded  400  longer than the model's context
│   ├── RequestTooLarge        413  more bytes than the wire carries
│   ├── NotFound               404  unknown model, run, skill
│   └── Unsupported            422  no reachable peer can do this
├── PeerError              a peer failed; another one may be asked
│   ├── PeerUnreachable        502  could not be dialled, or never accepted
│   ├── PeerLost               502  went away after it accepted
│   ├── PeerBusy               503  said so before accepting
│   ├── PeerRefused            502  policy, wrong mesh, unknown skill
│   ├── ProtocolViolation      502  sent what the wire forbids
│   ├── TaskFailed             502  its engine or agent failed
│   ├── Abstained              502  its agent says that the task is not its own
│   └── ContractBroken         502  its result is not what was asked for, as checked in code
├── NodeError              our own node
│   ├── NoProvider             503  nobody reachable offers this now; says when to try again
│   ├── DeadlineExceeded       504  the time given to the request is over
│   └── Internal               500  a defect of ours
└── SetupError             what the person at the command line can mend; exit code 1

`status` is the HTTP status and `code` the OpenAI error code; `is_retryable` says whether *another*
peer may be asked. They are mapped to error bodies in `mesh.gateway.errors` and nowhere else.
"""

from __future__ import annotations

import logging
import traceback
from typing import ClassVar

_log = logging.getLogger(__name__)


class MonaiError(Exception):
    """Carries one sentence for a person, and what the gateway and the dispatcher need to act."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    default_code: ClassVar[str] = "internal_error"
    is_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.retry_after_seconds = retry_after_seconds


class CallerError(MonaiError):
    status = 400
    kind = "invalid_request_error"
    default_code = "invalid_request"


class InvalidRequest(CallerError): ...


class ContextLengthExceeded(CallerError):
    default_code = "context_length_exceeded"


class RequestTooLarge(CallerError):
    status = 413
    default_code = "request_too_large"


class NotFound(CallerError):
    status = 404
    default_code = "not_found"


class Unsupported(CallerError):
    status = 422
    default_code = "unsupported"


class PeerError(MonaiError):
    status = 502
    default_code = "peer_error"
    is_retryable = True


class PeerUnreachable(PeerError):
    default_code = "peer_unreachable"


class PeerLost(PeerError):
    default_code = "peer_lost"


class PeerBusy(PeerError):
    status = 503
    default_code = "peer_busy"


class PeerRefused(PeerError):
    default_code = "peer_refused"


class ProtocolViolation(PeerError):
    default_code = "protocol_violation"


class TaskFailed(PeerError):
    default_code = "task_failed"


class Abstained(PeerError):
    default_code = "abstained"


class ContractBroken(PeerError):
    default_code = "contract_broken"


class NodeError(MonaiError): ...


class NoProvider(NodeError):
    status = 503
    default_code = "no_provider"


class DeadlineExceeded(NodeError):
    status = 504
    kind = "timeout_error"
    default_code = "deadline_exceeded"


class Internal(NodeError): ...


class SetupError(MonaiError):
    kind = "setup_error"
    default_code = "setup"


# What a provider may say in a `failed` frame, and what it becomes here. A code that is not listed is a
# TaskFailed: a peer cannot choose an arbitrary error class of ours.
_FROM_WIRE: dict[str, type[MonaiError]] = {
    error.default_code: error
    for error in (
        InvalidRequest,
        ContextLengthExceeded,
        Unsupported,
        PeerBusy,
        PeerRefused,
        TaskFailed,
        Abstained,
        DeadlineExceeded,
    )
}


def from_wire(code: str, message: str) -> MonaiError:
    """The error that a peer's `failed` frame stands for."""
    return _FROM_WIRE.get(code, TaskFailed)(message)


def log_defect(what: str, error: BaseException) -> None:
    """Log where an unexpected error arose. Its message stays out: it may quote what a user wrote."""
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s failed: %s\n%s", what, type(error).__name__, where)
