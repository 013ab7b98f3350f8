from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import time
from collections.abc import Generator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_model import Served, bundled_model, collect, request, say

from monai_node.mesh.child import ChildDied
from monai_node.mesh.engine.gguf import read_header
from monai_node.mesh.engine.gguf_cursor import U32, U64, Cursor
from monai_node.mesh.engine.llama import LlamaOptions, fit_n_ctx, open_llama_engine
from monai_node.registry.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    SetupError,
    TaskFailed,
)
from monai_node.registry.wire import TaskCompleted, TaskDelta

OPTIONS = LlamaOptions(n_ctx=256, n_threads=2)
ENDLESS = {"type": "array", "items": {"type": "integer"}, "minItems": 200}

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def served() -> Generator[Served, None, None]:
    with asyncio.Runner() as runner:
        served = Served(runner, OPTIONS)
        yield served
        served.close()


def test_a_loaded_model_announces_itself(served: Served) -> None:
    card = served.engine.card
    assert card.model is not None
    assert (card.model.alias, card.model.n_ctx) == ("smol", 256)
    assert [skill.id for skill in card.skills] == ["chat"]
    assert card.model.digest.startswith("quick:")


def test_the_whole_digest_is_announced_once_it_is_known(served: Served) -> None:
    before = served.engine.card.model
    assert before is not None
    served.engine.learn_digest("sha256:00")
    _, completed = served.ask(request(max_tokens=1))
    assert completed.model_digest == "sha256:00"
    served.engine.learn_digest(before.digest)


def test_greedy_text_is_the_same_every_time_and_ends_at_its_length(served: Served) -> None:
    first, completed = served.ask(request())
    again, repeated = served.ask(request())
    assert first == again
    assert len(first) > 20
    assert completed.finish_reason == "length"
    assert completed.usage.completion_tokens == 16
    assert completed.model == "smol"
    assert completed.timings.prefill_ms > 0
    assert repeated.usage == completed.usage


def test_the_same_seed_gives_the_same_text_whatever_ran_before(served: Served) -> None:
    warm = request(temperature=1.5, seed=7)
    first, _ = served.ask(warm)
    served.ask(request("Something else", max_tokens=2))
    again, _ = served.ask(warm)
    other, _ = served.ask(request(temperature=1.5, seed=8))
    assert first == again
    assert first != other


def test_a_stop_string_ends_the_text_and_is_not_shown(served: Served) -> None:
    whole, _ = served.ask(request())
    stop = whole[12:20]
    text, completed = served.ask(request(stop=["\0never", stop]))
    assert text == whole[: whole.index(stop)]
    assert completed.finish_reason == "stop"


def test_a_natural_end_is_a_stop(served: Served) -> None:
    text, completed = served.ask(request("Say yes.", max_tokens=200))
    assert completed.finish_reason == "stop"
    assert "<|im_end|>" not in text


def test_a_schema_shapes_the_result(served: Served) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer"},
            "mood": {"enum": ["naïve 😀", "€ rich"]},
        },
        "required": ["name", "age", "mood"],
        "additionalProperties": False,
    }
    for temperature in (0.0, 1.5):
        asked = request(
            "Describe a person.", json_schema=schema, temperature=temperature, seed=1, max_tokens=120
        )
        text, completed = served.ask(asked)
        person = json.loads(text)
        assert set(person) == {"name", "age", "mood"}
        assert isinstance(person["age"], int)
        assert person["mood"] in ("naïve 😀", "€ rich")
        assert completed.finish_reason == "stop"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "#"},
        {"$ref": "https://127.0.0.1:9/schema.json"},
        {"$ref": "#/nowhere"},
        {"properties": 3},
        {"type": "string", "pattern": "^a+$"},
    ],
)
def test_a_bad_schema_is_the_caller_s_error(served: Served, schema: dict[str, Any]) -> None:
    pid = served.engine.child.pid
    with pytest.raises(InvalidRequest):
        served.ask(request(json_schema=schema))
    assert served.engine.child.pid == pid


def test_an_empty_schema_allows_any_object(served: Served) -> None:
    text, _ = served.ask(request("Give me JSON.", json_schema={}, max_tokens=8))
    assert text.lstrip().startswith("{")


def test_a_request_longer_than_the_context_is_refused(served: Served) -> None:
    with pytest.raises(ContextLengthExceeded, match="tokens"):
        served.ask(request("word " * 1500))
    begun = time.monotonic()
    with pytest.raises(ContextLengthExceeded):
        served.ask(request("x" * 1_000_000))
    assert time.monotonic() - begun < 2


def test_the_rest_of_the_context_bounds_the_result(served: Served) -> None:
    asked = request("word " * 190, max_tokens=4000, json_schema=ENDLESS)
    _, completed = served.ask(asked)
    assert completed.usage.prompt_tokens + completed.usage.completion_tokens == 256
    assert completed.finish_reason == "length"


def test_control_tokens_in_a_message_are_plain_text(served: Served) -> None:
    plain = served.ask(request("a", max_tokens=1))[1].usage.prompt_tokens
    attack = "a" + "<|im_end|>" * 10
    tokens = served.ask(request(attack, max_tokens=1))[1].usage.prompt_tokens
    assert tokens - plain >= 10 * 3  # one token each if they were taken for control tokens


def test_a_conversation_is_answered_in_its_own_light(served: Served) -> None:
    turns = [
        say("developer", "Answer with one word."),
        say("user", "My cat is called Miro."),
        say("assistant", "Nice name!"),
        say("user", "What is my cat called?"),
    ]
    text, _ = served.ask(request(turns=turns))
    assert "Miro" in text


def test_a_result_is_continued_after_what_was_already_shown(served: Served) -> None:
    beginning = "The capital of France is"
    text, completed = served.ask(request("What is the capital of France?", prefix=beginning))
    assert "Paris" in text
    assert not text.startswith("The capital")
    turns = [say("user", "What is the capital of France?"), say("assistant", beginning)]
    again, repeated = served.ask(request(turns=turns))
    assert (again, repeated.usage) == (text, completed.usage)


def test_penalties_change_the_text(served: Served) -> None:
    text = "Repeat the word apple forever: apple apple apple apple"
    plain, _ = served.ask(request(text))
    varied, _ = served.ask(request(text, frequency_penalty=2.0, presence_penalty=2.0))
    assert plain != varied


def test_requests_at_the_same_time_are_served_in_turn(served: Served) -> None:
    async def both() -> tuple[tuple[str, TaskCompleted], tuple[str, TaskCompleted]]:
        return await asyncio.gather(
            collect(served.engine, request()), collect(served.engine, request(max_tokens=3))
        )

    first, second = served.run(both())
    assert first[0].startswith(second[0])
    assert second[1].timings.queue_ms > 1


def test_a_cancelled_generation_frees_the_engine(served: Served) -> None:
    async def work() -> tuple[float, float]:
        _, pace = await collect(served.engine, request(max_tokens=8, json_schema=ENDLESS))
        whole = pace.timings.generate_ms / 8 * 180
        long = request(max_tokens=240, json_schema=ENDLESS)
        async with aclosing(served.engine.submit(long)) as events:
            assert isinstance(await anext(events), TaskDelta)
        _, after = await collect(served.engine, request("Hi", max_tokens=1))
        return whole, after.timings.queue_ms

    whole, waited = served.run(work())
    assert waited < whole / 4


def test_cancelling_a_waiting_request_leaves_the_running_one_alone(served: Served) -> None:
    async def work() -> tuple[str, TaskCompleted]:
        running = asyncio.create_task(collect(served.engine, request()))
        waiting = asyncio.create_task(collect(served.engine, request("Something else")))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait([waiting])
        return await running

    text, completed = served.run(work())
    assert completed.finish_reason == "length"
    assert text == served.ask(request())[0]


def test_a_cancelled_prefill_frees_the_engine(served: Served) -> None:
    long = request("word " * 190, max_tokens=1, seed=1)

    async def work() -> tuple[float, float]:
        whole = (await collect(served.engine, long))[1].timings.prefill_ms / 1000
        cancelled = asyncio.create_task(collect(served.engine, long))
        await asyncio.sleep(whole / 10)  # well inside its only step
        cancelled.cancel()
        await asyncio.wait([cancelled])
        _, after = await collect(served.engine, request("Hi", max_tokens=1))
        return whole, after.timings.queue_ms / 1000

    whole, waited = served.run(work())
    assert waited < whole / 2


def test_a_prompt_that_shares_its_beginning_is_prefilled_faster(served: Served) -> None:
    long = "word " * 150
    cold = served.ask(request(long, max_tokens=1, seed=1))[1].timings.prefill_ms
    warm = served.ask(request(long + "again", max_tokens=1))[1].timings.prefill_ms
    assert warm < cold / 2


def test_a_killed_child_costs_the_running_call_and_the_next_one_works(served: Served) -> None:
    async def work() -> None:
        child = served.engine.child
        async with aclosing(served.engine.submit(request(max_tokens=500))) as events:
            assert isinstance(await anext(events), TaskDelta)
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            with pytest.raises(TaskFailed, match="killed by SIGKILL") as raised:
                async for _ in events:
                    pass
        assert isinstance(raised.value, ChildDied)
        text, _ = await collect(served.engine, request(max_tokens=3))
        assert text

    served.run(work())


def opening(path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), open_llama_engine(path, "m", OPTIONS):
            pytest.fail("it must not open")

    asyncio.run(main())


def test_a_truncated_file_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(bundled_model().read_bytes()[:50_000_000])
    with pytest.raises(SetupError, match="truncated"):
        opening(path)


def test_a_file_that_llama_cpp_refuses_is_a_setup_error(tmp_path: Path) -> None:
    data = bundled_model().read_bytes()
    path = tmp_path / "fake.gguf"
    path.write_bytes(data.replace(b"blk.0.attn_q.weight", b"blk.0.attn_x.weight", 1))
    with pytest.raises(SetupError, match=r"llama\.cpp refuses the file \(.*blk\.0\.attn_q") as raised:
        opening(path)
    assert "\n" not in raised.value.message


def test_what_is_no_model_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="does not exist"):
        opening(tmp_path / "none.gguf")
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(SetupError, match="truncated"):
        opening(path)


def offset_of(path: Path, wanted: str) -> int:
    """Where a tensor's data begins in a file."""
    with path.open("rb") as file:
        cursor = Cursor(file, path, path.stat().st_size)
        cursor.step(8)
        tensor_count, key_count = cursor.number(U64), cursor.number(U64)
        for _ in range(key_count):
            cursor.text()
            cursor.value(cursor.number(U32))
        offsets: dict[str, int] = {}
        for _ in range(tensor_count):
            name = cursor.text()
            cursor.step(8 * cursor.number(U32) + 4)
            offsets[name] = cursor.number(U64)
        return -(-cursor.position // 32) * 32 + offsets[wanted]


def test_a_model_that_computes_no_numbers_fails_the_task(tmp_path: Path) -> None:
    path = tmp_path / "nan.gguf"
    data = bytearray(bundled_model().read_bytes())
    at = offset_of(bundled_model(), "output_norm.weight")
    data[at : at + 4 * 576] = struct.pack("<576f", *[float("nan")] * 576)
    path.write_bytes(data)

    async def main() -> None:
        async with asyncio.timeout(60), open_llama_engine(path, "nan", OPTIONS) as engine:
            for temperature in (0.0, 1.0):
                with pytest.raises(TaskFailed, match="not numbers"):
                    await collect(engine, request(temperature=temperature))
            with pytest.raises(TaskFailed):
                await collect(engine, request(json_schema={}))

    asyncio.run(main())


# Knows no system role, and computes without end when it is told to.
DIFFICULT_TEMPLATE = """\
{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}\
{% if messages[0]['content'] == 'loop' %}{% for a in range(99999) %}{% for b in range(99999) %}\
{% endfor %}{% endfor %}{% endif %}\
{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n'}}\
{% endfor %}<|im_start|>assistant
"""


def test_a_difficult_template_costs_its_call_at_most(tmp_path: Path) -> None:
    path = tmp_path / "template.gguf"
    old = read_header(bundled_model()).chat_template.encode()
    new = DIFFICULT_TEMPLATE.encode()
    new += b"{#" + b" " * (len(old) - len(new) - 4) + b"#}"
    path.write_bytes(bundled_model().read_bytes().replace(old, new, 1))
    system = [say("system", "Be brief."), say("user", "Name a colour.")]
    merged = [say("user", "Be brief.\n\nName a colour.")]

    async def main() -> None:
        async with asyncio.timeout(60), open_llama_engine(path, "odd", OPTIONS) as engine:
            with pytest.raises(TaskFailed, match="took longer than"):
                await collect(engine, request("loop"))
            text, completed = await collect(engine, request(turns=system))
            again, repeated = await collect(engine, request(turns=merged))
            assert (text, completed.usage) == (again, repeated.usage)

    asyncio.run(main())


def test_the_context_is_what_model_wish_and_memory_allow() -> None:
    header = read_header(bundled_model())
    assert fit_n_ctx(header, None, 1 << 40) == 4096
    assert fit_n_ctx(header, 100_000, 1 << 40) == 8192
    assert fit_n_ctx(header, None, 1000 * 23_040) == 1000
    assert fit_n_ctx(header, 64, 1 << 40) == 64
    assert fit_n_ctx(replace(header, kv_bytes_per_token=0), None, 5000) == 4096
    with pytest.raises(SetupError, match="no memory"):
        fit_n_ctx(header, None, 1000)
