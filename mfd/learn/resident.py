"""The model that lives at a peer and never travels: its own architecture, taught by what visits.

Rules of this file: what lies in the folder is whole at every moment, and changes only once a lesson
has gone well; no tensor of it leaves the peer.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mfd.learn import zoo
from mfd.learn.errors import LearnError
from mfd.learn.memory import state_bytes
from mfd.packet.errors import PacketError
from mfd.packet.safetensors import map_safetensors, write_safetensors
from mfd.packet.states import State, from_state_dict, to_state_dict

__all__ = ["FILE", "Resident"]

FILE = "resident.safetensors"
RECIPE_NOTE, LESSONS_NOTE = "mfd.recipe", "mfd.lessons"


class Resident:
    """Keeps the resident model of a peer.

    `model`: a recipe of the zoo, or a module. `folder`: where it outlives the process; None: here
    alone. Raises: LearnError, one sentence, for a recipe that cannot be built.
    """

    def __init__(self, model: Mapping[str, Any] | nn.Module, folder: Path | None = None) -> None:
        self.lessons = 0  # that it has had
        self._path = None if folder is None else folder / FILE
        self._module: nn.Module | None = None
        if isinstance(model, nn.Module):
            self._recipe: Mapping[str, Any] = {"local": type(model).__qualname__}
            self._module = copy.deepcopy(model)
            return
        self._recipe = dict(model)
        if self._recipe.get("zoo") in zoo.TABLES:
            raise LearnError(
                f"the resident model: {self._recipe['zoo']} is what walkers bring, not a model; "
                f"models of the zoo are {', '.join(zoo.MODELS)}"
            )
        try:
            with torch.device("meta"):
                zoo.build(self._recipe)
        except ValueError as exc:
            raise LearnError(f"the resident model: {exc}") from exc

    def told(self) -> dict[str, Any]:
        """What its owner is told, ready for JSON. Raises: LearnError for a damaged file.

        `taught`: when the last lesson was kept, Unix seconds; None where there was none, or where
        it is kept in no folder.
        """
        held = state_bytes(self.module)
        at = None
        if self._path is not None:
            with suppress(OSError):
                at = round(self._path.stat().st_mtime, 3)
        return {"recipe": self._recipe, "bytes": held, "lessons": self.lessons, "taught": at}

    @property
    def module(self) -> nn.Module:
        """The model; change a copy, and `adopt` it. Raises: LearnError for a damaged file."""
        if self._module is None:
            self._module = zoo.init(self._recipe, 0)
        if self._path is not None and not self.lessons and self._path.exists():
            self._load(self._path, self._module)
        return self._module

    def adopt(self, module: nn.Module) -> None:
        """Keep what a lesson has made of it, in the folder if there is one. Raises: LearnError."""
        if self._path is not None:
            self._save(self._path, module)
        self._module = module
        self.lessons += 1

    def _load(self, path: Path, module: nn.Module) -> None:
        try:
            found = map_safetensors(path)
        except (OSError, PacketError) as exc:
            raise LearnError(f"the resident model {path} cannot be read: {exc}") from exc
        written, wanted = found.metadata.get(RECIPE_NOTE, ""), _line(self._recipe)
        if written != wanted:
            raise LearnError(
                f"the resident model {path} is {written or 'of no recipe'}, and this peer is set "
                f"to {wanted}: move the file away, or set the peer as it was"
            )
        try:
            module.load_state_dict(to_state_dict(State(found.tensors, found.aliases)))
            self.lessons = int(found.metadata.get(LESSONS_NOTE, "1"))
        except (RuntimeError, ValueError) as exc:
            reason = " ".join(str(exc).split())[:300]
            raise LearnError(f"the resident model {path} is damaged: {reason}") from exc

    def _save(self, path: Path, module: nn.Module) -> None:
        state = from_state_dict(module.state_dict())
        notes = {RECIPE_NOTE: _line(self._recipe), LESSONS_NOTE: str(self.lessons + 1)}
        draft = path.with_name(f".{path.name}.new")  # one name: what a crash has left is replaced
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                file.writelines(write_safetensors(state.tensors, {**state.aliases, **notes}))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as exc:
            draft.unlink(missing_ok=True)
            reason = exc.strerror or exc
            raise LearnError(f"the resident model {path} cannot be written: {reason}") from exc


def _line(recipe: Mapping[str, Any]) -> str:
    return json.dumps(dict(recipe), sort_keys=True)
