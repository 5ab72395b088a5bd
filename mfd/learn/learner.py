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
from typing import TYPE_CHECKING, Any

from mfd.learn.errors import LearnError
from mfd.learn.holdings import Holding, load
from mfd.packet.objects import Buffer, LayerObject
from mfd.packet.plan import Plan, decode_plan
from mfd.packet.task import LayerRef, LearnResult, LearnTask

if TYPE_CHECKING:
    from torch import nn

    from mfd.learn.layers import Layer

__all__ = ["Learner"]

Read = Callable[[bytes], Buffer]
Write = Callable[[LayerObject], None]
Build = Callable[[Mapping[str, Any]], "nn.Module"]
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
STATE_SLACK = 1.1  # of a model's bytes over the sum of its layer objects, which hold tables too


class Learner:
    """Trains, measures and merges models on this peer's data; keeps the last model built.

    `holdings`: data name -> address (see mfd.learn.holdings) or the data itself. `build` makes the
    modules of recipes that are not in the zoo, {"local": ...}, from the owner's own code. `memory`
    is what a model and its training may take, in bytes (mfd.learn.memory); 0: no limit.
    """

    def __init__(
        self,
        holdings: Mapping[str, str | Holding],
        *,
        build: Build | None = None,
        allow_py: bool = False,
        threads: int = 0,
        memory: int = 0,
    ) -> None:
        self._addresses = dict(holdings)
        self._loaded: dict[str, Holding] = {
            n: h for n, h in holdings.items() if isinstance(h, Holding)
        }
        self._build = build
        self._allow_py = allow_py
        self._threads = threads  # 0: what torch has when the first task comes
        self._memory = memory
        self._recipe = ""
        self._module: nn.Module | None = None
        self._layers: list[Layer] = []
        self._content: dict[int, bytes] = {}  # layer index -> digest of what the module holds

    def describe(self, name: str) -> dict[str, Any]:
        """Samples and label counts of a holding. Raises: LearnError, HoldingError."""
        holding = self._holding(name)
        return {"samples": len(holding.x), "labels": holding.labels()}

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
        started = time.perf_counter()
        plan = decode_plan(task.plan)
        self._use_threads(plan)
        match task.kind:
            case "train":
                result = self._train(
                    task, plan, read=read, write=write, progress=progress, cancelled=cancelled
                )
            case "measure":
                result = self._measure(task, plan, read, cancelled)
            case "merge":
                result = self._merge(task, plan, read, write)
            case _:
                raise LearnError(
                    f"there is no task {task.kind!r}; a peer can train, measure, merge"
                )
        claims = {
            **result.claims,
            "seconds": time.perf_counter() - started,
            "peak_bytes": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT),
        }
        return LearnResult(result.layers, claims, result.trained)

    def _train(
        self,
        task: LearnTask,
        plan: Plan,
        *,
        read: Read,
        write: Write,
        progress: Callable[[float], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> LearnResult:
        from mfd.learn.layers import free_ranges, frozen_count, indices_of
        from mfd.learn.states import pack_with, state_of
        from mfd.learn.training import Options, train_blocks

        holding = self._holding_for(task, plan)
        options = Options.of(plan.learn)
        module = self._prepare(task, plan, read)
        ranges, base = free_ranges(task.trained, self._layers), frozen_count(self._layers)
        indices = indices_of(ranges, len(self._layers))
        carries = options.carry and plan.mode != "fedavg"  # what is merged carries no state
        state = state_of((task.layers[i] for i in indices), read) if carries else {}
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
            progress=progress,
            cancelled=cancelled,
        )
        claims = {**done.claims, "labels": float(len(holding.labels()))}
        changed = []
        for index in indices_of(done.trained, len(self._layers)):
            made = pack_with(module, self._layers[index], done.carried if carries else {})
            self._content[index] = made.digest
            if made.digest != task.layers[index].digest:
                write(made)
                changed.append(
                    LayerRef(index, self._layers[index].name, made.digest, made.raw_bytes)
                )
        return LearnResult(tuple(changed), claims, done.trained)

    def _measure(
        self, task: LearnTask, plan: Plan, read: Read, cancelled: Callable[[], bool] | None
    ) -> LearnResult:
        from mfd.learn.training import measure

        holding = self._holding_for(task, plan)
        module = self._prepare(task, plan, read)
        return LearnResult((), measure(module, holding, cancelled=cancelled))

    def _merge(self, task: LearnTask, plan: Plan, read: Read, write: Write) -> LearnResult:
        from mfd.learn.merging import merge_layer

        module = self._made(task, plan)
        parameters = {key for key, _ in module.named_parameters()}
        changed = []
        for ref in task.layers:
            made = merge_layer(ref, task.siblings, read, parameters=parameters)
            if made is not None and made.digest != ref.digest:
                write(made)
                changed.append(LayerRef(ref.index, ref.name, made.digest, made.raw_bytes))
        samples = sum(sibling.weight for sibling in task.siblings)
        return LearnResult(tuple(changed), {"samples": samples})

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

    def _use_threads(self, plan: Plan) -> None:
        """A plan may ask for fewer threads than the owner allows, never for more."""
        import torch

        self._threads = self._threads or torch.get_num_threads()
        wanted = plan.learn.get("threads")
        count = self._threads
        if isinstance(wanted, int) and wanted > 0:
            count = min(wanted, count)
        if count != torch.get_num_threads():
            torch.set_num_threads(count)

    def _made(self, task: LearnTask, plan: Plan) -> nn.Module:
        """The module of the plan's recipe, its values not yet those of the task."""
        from mfd.learn.layers import check_names, find_layers

        recipe = json.dumps(dict(plan.recipe), sort_keys=True, default=repr)
        if self._module is None or recipe != self._recipe:
            self._module, self._content = None, {}  # frees the last one before the next is made
            self._module = self._new_module(task, plan)
            self._layers = find_layers(self._module)
            self._recipe = recipe
        check_names(task.layers, self._layers)
        return self._module

    def _new_module(self, task: LearnTask, plan: Plan) -> nn.Module:
        import torch

        from mfd.learn import recipes, zoo
        from mfd.learn.memory import state_bytes

        if not recipes.is_known(plan.recipe):
            if self._build is None:
                known = ", ".join(sorted(zoo.ZOO))
                raise LearnError(
                    f"this peer cannot build the recipe {dict(plan.recipe)!r}; it knows {known} "
                    "and hf"
                )
            return self._build_own(plan.recipe)
        try:
            with torch.device("meta"):
                needed = state_bytes(recipes.build(plan.recipe))
            brought = sum(ref.raw_bytes for ref in task.layers)
            if needed > brought * STATE_SLACK:
                raise LearnError(
                    f"the recipe needs {needed} bytes, the packet's layers have {brought}"
                )
            return recipes.build(plan.recipe)
        except LearnError:
            raise
        except ValueError as exc:
            raise LearnError(str(exc)) from exc

    def _build_own(self, recipe: Mapping[str, Any]) -> nn.Module:
        from mfd.learn.hf import adapt

        assert self._build is not None
        try:
            return adapt(self._build(recipe))
        except Exception as exc:  # a task boundary: the owner's code may raise anything
            raise LearnError(f"the recipe {dict(recipe)!r} cannot be built: {exc}") from exc

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
