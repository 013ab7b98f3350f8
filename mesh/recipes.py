"""Accepted plans on disk: one file of this user, which any gateway and the command line read and change.

It holds words of the user's requests, and so is readable by its owner only, stays on this machine, and is
quoted in no log. The recipe used longest ago is first in the file and the first to be forgotten.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Generator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from monai_node.agents.recipes import Recipe
from monai_node.mesh.state import exclusive, explained, read_model, write_json
from monai_node.registry.errors import SetupError

RECIPES_MAX = 500
# As JSON: half of what a file of the state directory may have.
_FILE_BYTES_MAX = 2 << 20

# What tells one writing of the file from another: each is a new inode.
_Stamp = tuple[int, int, int]


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    recipes: tuple[Recipe, ...]


class RecipeFile:
    """The recipes in one file. Every method looks at the disk, may be called from any thread, and raises
    SetupError when the file cannot be used; a damaged one is set aside and counts as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._stamp: _Stamp | None = None
        self._recipes: tuple[Recipe, ...] = ()
        self._used: dict[str, None] = {}  # keys found since the last writing, in the order of their use

    def recipes(self) -> tuple[Recipe, ...]:
        """All of them, the one used longest ago first, as far as it was written down."""
        with self._guard, explained(self._path):
            return self._read()

    def find(self, keys: Sequence[str]) -> Recipe | None:
        """The recipe of the first of these keys that has one; using it is remembered in memory until the
        file is written for another reason."""
        with self._guard, explained(self._path):
            known = {recipe.key: recipe for recipe in self._read()}
            found = next((known[key] for key in keys if key in known), None)
            if found is not None:
                self._used.pop(found.key, None)
                self._used[found.key] = None
            return found

    def keep(self, recipe: Recipe, keys: Sequence[str]) -> None:
        """Keep a recipe in the place of all that stand under these keys."""
        with self._changing() as recipes:
            rest = [known for known in recipes if known.key not in keys]
            order = {key: place for place, key in enumerate(self._used)}
            rest.sort(key=lambda known: order.get(known.key, -1))
            recipes[:] = _bounded([*rest, recipe])
            self._used.clear()

    def forget(self, name: str) -> None:
        """Remove the recipe whose id is `name`; SetupError when there is none."""
        with self._changing() as recipes:
            if all(recipe.id != name for recipe in recipes):
                raise SetupError(f"there is no recipe {name!r}; `monai-node recipes` lists them")
            recipes[:] = [recipe for recipe in recipes if recipe.id != name]

    def clear(self) -> int:
        """Remove all; how many there were."""
        with self._changing() as recipes:
            count = len(recipes)
            recipes.clear()
        return count

    @contextlib.contextmanager
    def _changing(self) -> Generator[list[Recipe]]:
        """The recipes to be changed, which are written unless an error is raised."""
        # In this order: whoever only reads does not wait for another process that holds the file.
        lock = self._path.with_suffix(".lock")
        with explained(self._path), exclusive(lock), self._guard:
            before = self._read()
            recipes = list(before)
            yield recipes
            if tuple(recipes) != before:
                write_json(self._path, {"recipes": [recipe.model_dump() for recipe in recipes]})

    def _read(self) -> tuple[Recipe, ...]:
        stamp = self._stamp_now()
        if stamp is None or stamp != self._stamp:
            kept = read_model(self._path, _Kept) if stamp else None
            self._recipes = kept.recipes if kept is not None else ()
            self._stamp = stamp
        return self._recipes

    def _stamp_now(self) -> _Stamp | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _bounded(recipes: Sequence[Recipe]) -> list[Recipe]:
    """The last of these, as many as may be kept."""
    kept: list[Recipe] = []
    size = 0
    for recipe in reversed(recipes[-RECIPES_MAX:]):
        size += len(json.dumps(recipe.model_dump(), indent=1))
        if size > _FILE_BYTES_MAX:
            break
        kept.append(recipe)
    return kept[::-1]
