"""Carry out learning tasks: objects in, objects out.

Rules of this file: torch is imported with the first task, not before; `describe` needs numpy alone.
A task comes from a stranger: the model it asks for is sized before its memory is taken.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfd.learn.errors import LearnError
from mfd.learn.holdings import Holding, load
from mfd.learn.samples import Sample
from mfd.packet.extent import FULL
from mfd.packet.objects import Buffer, LayerObject
from mfd.packet.plan import Plan, decode_plan
from mfd.packet.scales import scales_of
from mfd.packet.task import LayerRef, LearnResult, LearnTask

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mfd.learn.layers import Layer
    from mfd.learn.resident import Resident
    from mfd.learn.scaled import Part
    from mfd.learn.sharing import Visit
    from mfd.learn.stop import Smaller
    from mfd.learn.training import Options, Outcome

__all__ = ["Learner"]

Read = Callable[[bytes], Buffer]
Write = Callable[[LayerObject], None]
Build = Callable[[Mapping[str, Any]], "nn.Module"]
Watch = tuple[Callable[[float], None] | None, Callable[[], bool] | None]  # progress, cancelled
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
GATE_SAMPLES = 512  # behind the loss that admits a sibling, or not


class Learner:
    """Trains, measures and merges models on this peer's data; keeps the last model built.

    `holdings`: data name -> address (see mfd.learn.holdings) or the data itself. `build` makes the
    modules of recipes that are not in the zoo, {"local": ...}, from the owner's own code. `memory`
    is what a model and its training may take, in bytes (mfd.learn.memory); 0: no limit; where the
    model does not fit, the first of the plan's scales that does is trained. `resident`, a recipe or
    a module, is this peer's own model, which learns from walkers of mode `distill`; it is kept in
    `folder`, where that is given.
    """

    def __init__(
        self,
        holdings: Mapping[str, str | Holding],
        *,
        build: Build | None = None,
        allow_py: bool = False,
        threads: int = 0,
        memory: int = 0,
        resident: Mapping[str, Any] | nn.Module | None = None,
        folder: str | Path | None = None,
    ) -> None:
        self._addresses = dict(holdings)
        self._loaded: dict[str, Holding] = {
            n: h for n, h in holdings.items() if isinstance(h, Holding)
        }
        self._build = build
        self._allow_py = allow_py
        self._threads = threads  # 0: what torch has when the first task comes
        self._memory = memory
        self._resident_model, self._folder = resident, folder
        self._resident: Resident | None = None
        self._recipe = ""
        self._module: nn.Module | None = None
        self._layers: list[Layer] = []
        self._content: dict[int, bytes] = {}  # layer index -> digest of what the module holds

    @property
    def resident(self) -> Resident | None:
        """This peer's own model, if it has one. Raises: LearnError where it cannot be made."""
        if self._resident is None and self._resident_model is not None:
            from mfd.learn.resident import Resident

            folder = None if self._folder is None else Path(self._folder)
            self._resident = Resident(self._resident_model, folder)
        return self._resident

    def check_resident(self) -> None:
        """Raises: LearnError where the resident does not fit, or its file is of another."""
        if self.resident is not None:
            from mfd.learn.room import check_lives

            check_lives(self.resident.module, self._memory)

    def describe(self, name: str) -> dict[str, Any]:
        """Samples, label counts and form of a holding. Raises: LearnError, HoldingError."""
        holding = self._holding(name)
        form = Sample.of(holding).plain()
        return {"samples": len(holding.x), "labels": holding.labels(), "form": form}

    def perform(
        self,
        task: LearnTask,
        read: Read,
        write: Write,
        *,
        progress: Callable[[float], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> LearnResult:
        """Do a task. `read` gives a whole layer object by digest; `write` takes each changed one.

        WARNING: what `write` receives borrows the model's memory; it must be copied or written out.
        Raises: LearnError or HoldingError, one sentence; Cancelled.
        """
        from mfd.learn.building import use_threads
        from mfd.learn.cutting import cut, plan_of

        started = time.perf_counter()
        plan = plan_of(task, decode_plan(task.plan))
        self._threads = use_threads(plan.learn.get("threads"), self._threads)
        match task.kind:
            case "train":
                result = self._train(task, plan, read, write, (progress, cancelled))
            case "measure":
                result = self._measure(task, plan, read, cancelled)
            case "merge":
                result = self._merge(task, plan, read, write)
            case "cut":
                result = cut(task, plan, read, write)
            case _:
                raise LearnError(f"there is no task {task.kind!r}: train, measure, merge or cut")
        claims = {
            **result.claims,
            "seconds": time.perf_counter() - started,
            "peak_bytes": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT),
        }
        return LearnResult(result.layers, claims, result.trained)

    def _train(
        self, task: LearnTask, plan: Plan, read: Read, write: Write, watch: Watch
    ) -> LearnResult:
        from mfd.learn.replay import known_at
        from mfd.learn.scaled import train_part
        from mfd.learn.sharing import visit_of
        from mfd.learn.states import pack_trained
        from mfd.learn.training import Options

        holding = self._holding_for(task, plan)
        if plan.mode == "distill":
            at = visit_of(task, plan, holding, self._holding, watch)
            return self._shared(task, plan, at, read, write)
        options = Options.of(plan.learn, plan.mode)
        if (part := self._part(task, plan, holding)) is not None:
            return train_part(
                part,
                task,
                holding,
                read,
                write,
                options=options,
                known=known_at(task, plan, holding, 0, read),
                budget=self._memory,
                progress=watch[0],
                cancelled=watch[1],
            )
        module = self._prepare(task, plan, read)
        done, beside = self._train_layers(
            module, task, plan, options, holding=holding, read=read, watch=watch
        )
        claims = {**done.claims, "labels": float(len(holding.labels()))}
        packed = pack_trained(module, self._layers, done.trained, beside)
        return LearnResult(self._changed(task, packed, write), claims, done.trained)

    def _train_layers(
        self,
        module: nn.Module,
        task: LearnTask,
        plan: Plan,
        options: Options,
        *,
        holding: Holding,
        read: Read,
        watch: Watch,
    ) -> tuple[Outcome, Mapping[str, torch.Tensor]]:
        """Train the layers of a task in place; return what came of it and what travels beside."""
        from mfd.learn.layers import free_ranges, frozen_count, indices_of
        from mfd.learn.replay import known_at
        from mfd.learn.states import state_of
        from mfd.learn.training import train_blocks

        ranges, base = free_ranges(task.trained, self._layers), frozen_count(self._layers)
        indices = indices_of(ranges, len(self._layers))
        # what is merged carries no state
        carries = options.carry and plan.mode != "fedavg" and task.scale == FULL
        state = state_of((task.layers[i] for i in indices), read) if carries else {}
        known = known_at(task, plan, holding, base, read)
        for index in indices:  # whatever comes: these no longer hold what was loaded
            self._content.pop(index, None)
        done = train_blocks(
            module,
            holding,
            trained=ranges,
            body=None if task.body is None else (max(task.body[0], base), task.body[1]),
            block=task.block,
            sweep=task.sweep,
            budget=self._memory,
            options=options,
            journey=task.journey,
            seed=task.seed,
            carried=state,
            draws=known.draws(task.seed) if known else None,
            progress=watch[0],
            cancelled=watch[1],
            smaller=self._smaller(plan, module, indices),
        )
        beside = dict(done.carried) if carries else {}
        if known:
            done.claims["replayed"] = float(len(known.known))
            beside |= known.tensors(self._layers[base].tensors[0])
        return done, beside

    def _shared(
        self, task: LearnTask, plan: Plan, at: Visit, read: Read, write: Write
    ) -> LearnResult:
        """Let the walker and the resident learn from each other."""
        from mfd.learn.layers import pack
        from mfd.learn.options import Sharing
        from mfd.learn.sharing import visit

        module = self._prepare(task, plan, read)
        self._content = {}  # whatever comes: it no longer holds what was loaded
        sharing, options = Sharing.of(plan.learn, plan.mode)
        claims = visit(module, self.resident, at, sharing, options, budget=self._memory)
        packed = [(layer.index, pack(module, layer)) for layer in self._layers]
        claims["labels"] = float(len(at.holding.labels()))
        return LearnResult(self._changed(task, packed, write), claims)

    def _changed(
        self, task: LearnTask, packed: list[tuple[int, LayerObject]], write: Write
    ) -> tuple[LayerRef, ...]:
        """Write those layers that are others than the task's, and say which they are."""
        changed = []
        for index, made in packed:
            self._content[index] = made.digest
            if made.digest != task.layers[index].digest:
                write(made)
                name = self._layers[index].name
                changed.append(LayerRef(index, name, made.digest, made.raw_bytes))
        return tuple(changed)

    def _part(self, task: LearnTask, plan: Plan, holding: Holding) -> Part | None:
        """What of the model fits this peer's memory; None: all of it, or as it comes."""
        from mfd.learn.scaled import choose, refusal
        from mfd.learn.training import Options

        scales = scales_of(plan)
        if not self._memory or not scales or "zoo" not in plan.recipe:
            return None
        options = Options.of(plan.learn)
        return choose(
            plan.recipe,
            scales,
            [ref.name for ref in task.layers],
            refusal=lambda *a, **more: refusal(holding, options, self._memory, *a, **more),
            task=task,
        )

    def _smaller(self, plan: Plan, module: nn.Module, indices: list[int]) -> Smaller | None:
        """Versions inside the model, which learn along where all of it does."""
        from mfd.learn.scaled import nested

        if len(indices) < len(self._layers) or "zoo" not in plan.recipe:
            return None
        return nested(plan.recipe, scales_of(plan), module)

    def _measure(
        self, task: LearnTask, plan: Plan, read: Read, cancelled: Callable[[], bool] | None
    ) -> LearnResult:
        from mfd.learn.training import measure

        holding = self._holding_for(task, plan)
        module = self._prepare(task, plan, read)
        if plan.mode == "distill":
            from mfd.learn.options import Sharing
            from mfd.learn.sharing import measure_both

            sharing, _ = Sharing.of(plan.learn)
            found = measure_both(module, self.resident, holding, sharing, cancelled)
            return LearnResult((), found)
        return LearnResult((), measure(module, holding, cancelled=cancelled))

    def _merge(self, task: LearnTask, plan: Plan, read: Read, write: Write) -> LearnResult:
        from mfd.learn.merging import merge_layer
        from mfd.learn.scaled import Part

        module = self._made(task, plan)
        keys = {key for key, _ in module.named_parameters()}
        claims = self._left_out(task, plan, read, keys)
        siblings = [s for number, s in enumerate(task.siblings) if f"out{number}" not in claims]
        cut = next((s.scale for s in siblings if s.scale != FULL), None)
        axes = None if cut is None else Part.of(plan.recipe, cut).axes
        changed = []
        for ref in task.layers:
            made = merge_layer(
                ref, siblings, read, parameters=keys, rule=task.rule, radius=task.radius, axes=axes
            )
            if made is not None and made.digest != ref.digest:
                write(made)
                changed.append(LayerRef(ref.index, ref.name, made.digest, made.raw_bytes))
        claims["samples"] = sum(sibling.weight for sibling in siblings)
        return LearnResult(tuple(changed), claims)

    def _left_out(
        self, task: LearnTask, plan: Plan, read: Read, parameters: set[str]
    ) -> dict[str, float]:
        """Claims that tell which siblings do not pass the gate; one's own version always does."""
        from mfd.learn.forms import misfit
        from mfd.learn.merging import too_far, unfinite

        known = {ref.digest for ref in task.layers}
        claims: dict[str, float] = {}
        own_loss: float | None = None
        for number, sibling in enumerate(task.siblings):
            if sibling.layers == task.layers:
                continue
            if sibling.shares and not sibling.cut and misfit(task.layers, sibling, read):
                claims[f"out{number}"] = 4.0
            elif unfinite(sibling, known, read):
                claims[f"out{number}"] = 1.0
            elif task.rule == "near" and too_far(
                task.layers, sibling, read, radius=task.radius, parameters=parameters
            ):
                claims[f"out{number}"] = 2.0
            elif task.gate is not None and task.name:
                own_loss = self._loss(task, plan, read) if own_loss is None else own_loss
                loss = self._loss(replace(task, layers=sibling.layers), plan, read)
                if not loss <= (1 + task.gate) * own_loss:
                    claims[f"out{number}"] = 3.0
        return claims

    def _loss(self, task: LearnTask, plan: Plan, read: Read) -> float:
        """The loss of a version on a part of the data here."""
        from mfd.learn.training import measure

        holding = self._holding_for(task, plan)
        return measure(self._prepare(task, plan, read), holding, limit=GATE_SAMPLES)["loss"]

    def _holding_for(self, task: LearnTask, plan: Plan) -> Holding:
        holding = self._holding(task.name)
        if (plan.task == "language") != (holding.y.ndim == 2):
            kind = "text" if holding.y.ndim == 2 else "labelled samples"
            raise LearnError(f"the plan's task is {plan.task}, but {task.name!r} holds {kind}")
        return holding

    def _holding(self, name: str) -> Holding:
        if name not in self._addresses:
            held = ", ".join(sorted(self._addresses)) or "nothing"
            raise LearnError(f"this peer does not hold {name!r}; it holds {held}")
        if name not in self._loaded:
            address = self._addresses[name]
            assert isinstance(address, str)
            self._loaded[name] = load(address, allow_py=self._allow_py)
        return self._loaded[name]

    def _made(self, task: LearnTask, plan: Plan) -> nn.Module:
        """The module of the plan's recipe, its values not yet those of the task."""
        from mfd.learn.building import build_for
        from mfd.learn.layers import check_names, find_layers

        recipe = json.dumps(dict(plan.recipe), sort_keys=True, default=repr)
        if self._module is None or recipe != self._recipe:
            self._module, self._content = None, {}  # frees the last one before the next is made
            made = build_for(plan.recipe, task.layers, self._build)
            self._layers = find_layers(made)
            self._module, self._recipe = made, recipe  # only now: layers and module belong together
        check_names(task.layers, self._layers)
        return self._module

    def _prepare(self, task: LearnTask, plan: Plan, read: Read) -> nn.Module:
        """The module with the task's values; layers that it already holds are not read again."""
        from mfd.learn.layers import load as load_layer

        module = self._made(task, plan)
        for ref, layer in zip(task.layers, self._layers, strict=True):
            if self._content.get(ref.index) == ref.digest:
                continue
            self._content.pop(ref.index, None)
            load_layer(module, layer, read(ref.digest))
            self._content[ref.index] = ref.digest
        return module
