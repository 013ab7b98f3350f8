"""Answers as they were sent, kept in memory to be given again under the key of their request."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress

from starlette.types import Message, Scope

from monai_node.mesh.gateway.errors import AnswerNotKept, KeyReused
from monai_node.mesh.gateway.http.recording import Recording

ANSWERS_MAX = 1024
BYTES_MAX = 64 << 20  # of all that are over
ANSWER_BYTES_MAX = 1 << 20  # a stream of about 4,000 deltas of a word each
SECONDS_MAX = 24 * 3600.0

# Other errors say what is not to be had now (404 and 422: no peer has it), or that this was no try.
_FINAL_ERROR = 400
_SCOPE_KEY = "monai.answer"


def note_answer(scope: Scope, answer: RecordedAnswer) -> None:
    """This is the answer to the request of that scope."""
    scope[_SCOPE_KEY] = answer


def forget_answer(scope: Scope) -> None:
    """The answer to this request is no success, whatever its status says: it is not to be given again."""
    answer = scope.get(_SCOPE_KEY)
    if isinstance(answer, RecordedAnswer):
        answer.is_kept = False


class RecordedAnswer:
    """One answer, as far as it was sent. `fingerprint` is of the request that it answers, `began` by the
    clock of its store."""

    def __init__(self, fingerprint: bytes, began: float) -> None:
        self.fingerprint = fingerprint
        self.began = began
        self.body = Recording(ANSWER_BYTES_MAX)
        self.start: Message | None = None
        self.is_kept = True
        self.is_complete = False
        self.is_over = False
        self._opened = asyncio.Event()
        self._follower_count = 0
        self._alone = asyncio.Event()
        self._alone.set()
        self._joined = asyncio.Event()

    def note(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            self.is_kept = self.is_kept and (200 <= status < 300 or status == _FINAL_ERROR)
            # Layers around us add headers of their own to the message.
            self.start = {**message, "headers": list(message["headers"])}
            self._opened.set()
        else:
            self.body.add(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
            if self.is_complete:
                self.close()

    def close(self) -> None:
        """Nothing more is sent."""
        self.is_over = True
        self._opened.set()
        self.body.finish()

    async def opened(self) -> Message | None:
        """How the answer starts; None when it was given up before."""
        await self._opened.wait()
        return self.start

    @contextmanager
    def followed(self) -> Generator[None]:
        self._follower_count += 1
        self._alone.clear()
        self._joined.set()
        try:
            yield
        finally:
            self._follower_count -= 1
            if not self._follower_count:
                self._joined.clear()
                self._alone.set()

    async def until_unwanted(self, return_seconds: float) -> None:
        """Until nobody but the first client waits for this answer, and for so long nobody came for it."""
        with suppress(TimeoutError):
            while True:
                await self._alone.wait()
                async with asyncio.timeout(return_seconds):
                    await self._joined.wait()


Key = tuple[str, str]  # of the caller, and the one sent


class Answers:
    """The answers by key; those that are over go when they are old or too many, the oldest of the caller
    who has the most first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: OrderedDict[Key, RecordedAnswer] = OrderedDict()

    def find(self, key: Key, fingerprint: bytes) -> RecordedAnswer | None:
        """KeyReused when it came with another request, AnswerNotKept when the answer was too long."""
        self._let_go()
        answer = self._answers.get(key)
        if answer is None:
            return None
        if answer.fingerprint != fingerprint:
            raise KeyReused("this Idempotency-Key came with another request before; use a new one")
        if answer.body.first:
            raise AnswerNotKept(
                "the answer to the request with this Idempotency-Key is too long to be given again;"
                " to run it again, use a new key"
            )
        return answer

    def begin(self, key: Key, fingerprint: bytes) -> RecordedAnswer:
        self._answers[key] = answer = RecordedAnswer(fingerprint, self._clock())
        return answer

    def drop(self, key: Key, answer: RecordedAnswer) -> None:
        if self._answers.get(key) is answer:
            del self._answers[key]

    def _let_go(self) -> None:
        oldest = self._clock() - SECONDS_MAX
        over = {key: answer for key, answer in self._answers.items() if answer.is_over}
        for key in [key for key, answer in over.items() if answer.began < oldest]:
            del over[key], self._answers[key]
        byte_count = sum(answer.body.byte_count for answer in over.values())
        while over and (byte_count > BYTES_MAX or len(self._answers) >= ANSWERS_MAX):
            is_large = byte_count > BYTES_MAX
            key = first_of_most(
                {key: answer.body.byte_count if is_large else 1 for key, answer in over.items()}
            )
            assert key is not None
            byte_count -= over[key].body.byte_count
            del over[key], self._answers[key]


def first_of_most(weights: Mapping[Key, int]) -> Key | None:
    """The first key of the caller whose keys weigh the most in all; None where there is none."""
    totals: Counter[str] = Counter()
    for (caller, _), weight in weights.items():
        totals[caller] += weight
    if not totals:
        return None
    most = max(totals, key=lambda caller: totals[caller])
    return next(key for key in weights if key[0] == most)
