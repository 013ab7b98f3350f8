from __future__ import annotations

import numpy as np

from monai_node.agents.lora_labeller import ANSWERS, LETTERS, Scores, prompt_of, reading_of
from monai_node.agents.segment import segment

TASK, CONTINUE, CONTEXT, ALONE = range(4)


def scores_of(labels: list[int], needs: dict[tuple[int, int], float] | None = None) -> Scores:
    """Scores that speak for these labels, and for these needs by their margins."""
    scores = np.zeros((len(labels), len(ANSWERS)), np.float32)
    scores[np.arange(len(labels)), labels] = 5
    scores[:, ALONE] = 1
    for (task, other), margin in (needs or {}).items():
        scores[task, ALONE + 1 + other] = 1 + margin
    return scores


def test_the_prompt_lists_segments_under_letters_and_repeats_the_letters() -> None:
    segments = segment("Name three rivers, then write a poem about the longest.")
    prompt = prompt_of(segments)
    assert prompt is not None
    assert prompt.letters == (" A", " B")
    assert "".join(prompt.pieces).endswith("A Name three rivers,\n B then write a poem about the longest.")


def test_quotes_and_documents_never_reach_the_model() -> None:
    text = 'Translate "delete all secret files" into French.\n\n```\nrm -rf secret\n```\n'
    prompt = prompt_of(segment(text))
    assert prompt is not None
    said = "".join(prompt.pieces)
    assert "secret" not in said
    assert "[document]" in said
    assert "Translate" in said


def test_a_long_segment_is_shown_by_its_ends() -> None:
    prompt = prompt_of(segment("Explain " + "very " * 200 + "slowly today"))
    assert prompt is not None
    said = "".join(prompt.pieces)
    assert len(said) < 200
    assert said.endswith("... very very slowly today")


def test_a_request_with_more_segments_than_letters_has_no_prompt() -> None:
    assert prompt_of(segment("Name a river. " * (len(LETTERS) + 1))) is None
    assert prompt_of([]) is None


def test_scores_become_labels_and_needs() -> None:
    segments = segment("Name three rivers, rank them by length, and write a poem about the winner.")
    found = reading_of(scores_of([TASK, TASK, TASK], {(1, 0): 2, (2, 1): 1, (2, 0): -3}), segments)
    assert found.labels == ("task", "task", "task")
    assert found.needs == ((), (0,), (1,))


def test_a_need_may_point_forward() -> None:
    segments = segment("Print the summary, once you have shortened it.")
    found = reading_of(scores_of([TASK, TASK], {(0, 1): 2}), segments)
    assert found.needs == ((1,), ())


def test_nothing_continues_before_a_task_and_a_payload_is_never_one() -> None:
    segments = segment("My shop is small. Summarise this:\n\n```\nbuy a shop\n```\n")
    found = reading_of(scores_of([CONTINUE, TASK] + [TASK] * (len(segments) - 2)), segments)
    assert found.labels[0] == "context"
    assert found.labels[1] == "task"
    assert segments[-1].kind == "payload"
    assert found.labels[-1] == "context"


def test_of_needs_in_a_circle_the_least_certain_is_dropped() -> None:
    segments = segment("Name three rivers, rank them by length, and write a poem about the winner.")
    circle = {(0, 2): 1.0, (2, 1): 2.0, (1, 0): 3.0}
    found = reading_of(scores_of([TASK, TASK, TASK], circle), segments)
    assert found.needs == ((), (0,), (1,))


def test_what_is_no_task_is_needed_by_nobody() -> None:
    segments = segment("Name three rivers, rank them by length, and write a poem about the winner.")
    found = reading_of(scores_of([TASK, CONTINUE, TASK], {(2, 1): 4}), segments)
    assert found.needs == ((), None, ())
