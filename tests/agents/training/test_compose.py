import pytest

from monai_node.agents.training.compose import Composer
from monai_node.agents.training.corpus import Gold, read, split, without_voice


@pytest.fixture(scope="module")
def golds() -> list[Gold]:
    return read()


def is_sound(gold: Gold) -> bool:
    return all(span and span in gold.text for task in gold.tasks for span in task.spans) and all(
        0 <= other < len(gold.tasks) for task in gold.tasks for other in task.depends_on
    )


def test_composed_requests_hold_their_gold_words(golds: list[Gold]) -> None:
    training, _ = split(golds)
    composer = Composer(training, 7)
    made = [composer.compose() for _ in range(300)] + [composer.vary(gold) for gold in training[:300]]
    assert [gold.text for gold in made if not is_sound(gold)] == []
    assert sum(len(gold.tasks) > 1 for gold in made[:300]) > 200


def test_the_same_seed_composes_the_same(golds: list[Gold]) -> None:
    one, same, other = (Composer(golds, seed) for seed in (1, 1, 2))
    first = [one.compose().text for _ in range(20)]
    assert first == [same.compose().text for _ in range(20)]
    assert first != [other.compose().text for _ in range(20)]


def test_no_request_is_on_both_sides_of_the_split(golds: list[Gold]) -> None:
    training, validation = split(golds)
    assert len(training) + len(validation) == len(golds)
    assert {gold.id for gold in training}.isdisjoint(gold.id for gold in validation)
    assert 0.12 < len(validation) / len(golds) < 0.18
    assert all(not "ds-0710" <= gold.id <= "ds-0770" for gold in validation)


def test_a_voice_left_out_is_not_trained_on(golds: list[Gold]) -> None:
    training, measured = without_voice(golds, "dev-study")
    assert {gold.voice for gold in measured} == {"dev-study"}
    assert "dev-study" not in {gold.voice for gold in training}
    assert not any(gold.is_validation for gold in training)
