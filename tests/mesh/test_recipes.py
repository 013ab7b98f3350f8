"""Recipes on disk: one file that several processes share, bounded, private, and never half written."""

from __future__ import annotations

import itertools
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from monai_node.agents.graph import Task, TaskGraph
from monai_node.agents.recipes import Recipe
from monai_node.mesh import recipes as module
from monai_node.mesh import state
from monai_node.mesh.recipes import RECIPES_MAX, RecipeFile
from monai_node.registry.errors import SetupError


def recipe(number: int, text: str = "say hello", kind: str = "text") -> Recipe:
    graph = TaskGraph(tasks=(Task(id="t1", text=text),))
    return Recipe(key=f"{kind}-{number:032x}", title=f"request {number}", graph=graph, shown=("t1",))


def keep(file: RecipeFile, *numbers: int) -> None:
    for number in numbers:
        file.keep(recipe(number), [recipe(number).key])


def keys(file: RecipeFile) -> list[int]:
    return [int(kept.key.partition("-")[2], 16) for kept in file.recipes()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recipes.json"


def test_what_is_kept_is_found_by_every_process_and_by_none_but_its_owner(path: Path) -> None:
    file, other = RecipeFile(path), RecipeFile(path)
    assert other.find([recipe(1).key]) is None
    keep(file, 1)
    assert other.find(["text-" + "0" * 32, recipe(1).key]) == recipe(1)
    modes = {stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    assert modes == {0o600}


def test_the_first_key_that_has_a_recipe_decides(path: Path) -> None:
    file = RecipeFile(path)
    keep(file, 1, 2)
    assert file.find([recipe(2).key, recipe(1).key]) == recipe(2)


def test_a_newer_recipe_takes_the_place_of_all_under_its_requests_keys(path: Path) -> None:
    file = RecipeFile(path)
    keep(file, 1, 2, 3)
    changed = recipe(1, "say goodbye", kind="shape")
    file.keep(changed, [recipe(1).key, changed.key])
    assert file.recipes() == (recipe(2), recipe(3), changed)


def test_the_one_used_longest_ago_is_forgotten_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECIPES_MAX", 3)
    file = RecipeFile(path)
    keep(file, 1, 2, 3)
    assert file.find([recipe(1).key])
    assert file.find([recipe(2).key])
    assert file.find([recipe(1).key])
    keep(file, 4)
    assert keys(file) == [2, 1, 4]
    keep(file, 5)
    assert keys(file) == [1, 4, 5]


def test_the_file_stays_small_enough_to_be_read_again(path: Path) -> None:
    file = RecipeFile(path)
    for number in range(40):
        long = recipe(number, "é" * 60_000)
        file.keep(long, [long.key])
    assert 2 < len(file.recipes()) < 40
    assert keys(file)[-1] == 39
    assert RecipeFile(path).recipes() == file.recipes()


def test_the_most_that_are_kept_are_kept(path: Path) -> None:
    many = [recipe(number) for number in range(RECIPES_MAX + 1)]
    assert module._bounded(many) == many[1:]  # pyright: ignore[reportPrivateUsage]


def test_one_is_forgotten_by_its_id_and_all_are_cleared(path: Path) -> None:
    file = RecipeFile(path)
    first, second = recipe(1 << 100), recipe(2 << 100)
    for each in (first, second):
        file.keep(each, [each.key])
    file.forget(first.id)
    assert RecipeFile(path).recipes() == (second,)
    with pytest.raises(SetupError, match="there is no recipe"):
        file.forget(first.id)
    assert file.clear() == 1
    assert file.recipes() == ()


@pytest.mark.parametrize("content", ["{", "[]", '{"recipes": 5}', '{"recipes": [{"key": "x"}]}', "\x00"])
def test_a_damaged_file_is_set_aside_and_counts_as_empty(path: Path, content: str) -> None:
    path.write_text(content)
    file = RecipeFile(path)
    assert file.find([recipe(1).key]) is None
    assert path.with_name("recipes.json.corrupt-1").read_text() == content
    keep(file, 1)
    assert keys(file) == [1]


def test_a_folder_that_is_gone_is_one_sentence(path: Path) -> None:
    file = RecipeFile(path.parent / "gone" / path.name)
    assert file.recipes() == ()
    with pytest.raises(SetupError, match="cannot be used"):
        keep(file, 1)


def test_threads_and_files_lose_nothing_of_each_other(path: Path) -> None:
    def work(numbers: Sequence[int]) -> None:
        file = RecipeFile(path)
        keep(file, *numbers)

    threads = [threading.Thread(target=work, args=(range(n, 40, 4),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(keys(RecipeFile(path))) == list(range(40))


KILLED_WRITER = """
import itertools, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from mesh_recipes import RecipeFile, recipe
file = RecipeFile(Path(sys.argv[1]))
for number in itertools.count(1):
    file.keep(recipe(number % 50), [recipe(number % 50).key])
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_whole_file(path: Path, tmp_path: Path) -> None:
    helper = tmp_path / "mesh_recipes.py"
    helper.write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, str(path), str(tmp_path)], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    with writer:
        written = [int(line) for line in itertools.islice(writer.stdout, 60)]
        writer.kill()
    assert written[-1] == 60
    assert len(RecipeFile(path).recipes()) == 50
    assert not list(path.parent.glob("*.corrupt-*"))


def test_who_reads_does_not_wait_for_a_process_that_holds_the_file_and_who_writes_not_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_LOCK_SECONDS_MAX", 0.2)
    file, errors = RecipeFile(path), list[SetupError]()
    keep(file, 1)

    def write() -> None:
        try:
            keep(file, 2)
        except SetupError as error:
            errors.append(error)

    with state.exclusive(path.with_suffix(".lock")):
        writer = threading.Thread(target=write)
        writer.start()
        assert file.find([recipe(1).key]) == recipe(1)
        writer.join(10)
    assert "another process does not let go of it" in errors[0].message
    assert keys(file) == [1]
