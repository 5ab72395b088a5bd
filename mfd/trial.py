"""A walker's whole journey in the simulator, with real training: what it took, and what came home.

The protocol and its bytes are real. Time is virtual: links by their latency and bandwidth,
learning by a stated device model. `mfd.run` and `mfd compare` are two faces of this.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mfd.core.ages import walkers_of
from mfd.core.birth import bear
from mfd.core.config import Config
from mfd.core.effects import Effect, Keep, Report
from mfd.core.events import Event
from mfd.learn.learner import Learner
from mfd.packet.extent import FULL, Scale
from mfd.packet.objects import Buffer, LayerObject, wrap_object
from mfd.packet.packet import Packet
from mfd.packet.plan import Plan, decode_plan
from mfd.packet.scales import claims_of, scale_told
from mfd.packet.task import LearnResult, LearnTask, Range
from mfd.sim.keys import Signatures
from mfd.sim.world import Host, World
from mfd.topology import Topology

if TYPE_CHECKING:
    from torch import nn

    from mfd.learn.holdings import Holding
    from mfd.learn.learner import Build
    from mfd.sim.wires import Link

__all__ = ["Costs", "Device", "RunError", "Tally", "Trial", "Work", "state_bytes"]

LINK_LATENCY_US = 1_000  # where the topology does not say
LINK_BYTES_PER_S = 125e6
QUIET_SECONDS = 300.0  # virtual; longer than any timer that could still move a walker
FRAME_HEAD_BYTES = 4  # of a frame on a link
FAILED = "learning failed"
NEWS = ("chosen", "part", "stop", "merged", "measured", "reissued", FAILED, "arrived")
OF_MACHINE = ("peak_bytes", "taken_bytes")  # claims that tell of this machine, not of the device


class RunError(RuntimeError):
    """The walker did not come home; the sentence says what it was waiting for."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Work for one sample, in FLOP of a forward pass, layer by layer."""

    layers: tuple[float, ...]
    parts: Mapping[Scale, Mapping[str, float]] = field(default_factory=dict)
    """Of versions inside the model, layer by name; the narrower ones learn along with all of it."""

    def of(self, by: Scale, names: Sequence[str]) -> Costs:
        """Those of one version, in the layers with these names; layers that it drops cost none."""
        return self if by == FULL else Costs(tuple(self.parts[by].get(n, 0.0) for n in names))

    def training(self, trained: Sequence[Range], *, samples: float, kept: float) -> float:
        """FLOP of a stop that sees `samples`, `kept` of them different.

        What lies before the first trained layer runs once for each different sample, the rest
        forward and, at twice the cost, backward for each. Where all layers train, one of the
        narrower versions learns along with each batch, in turn.
        """
        first = min((low for low, _ in trained), default=0)
        work = kept * sum(self.layers[:first]) + 3 * samples * sum(self.layers[first:])
        along = [sum(part.values()) for by, part in self.parts.items() if by.width < 1]
        if along and sum(high - low for low, high in trained) == len(self.layers):
            work += 3 * samples * sum(along) / len(along)
        return work

    def measuring(self, samples: float) -> float:
        """FLOP of a forward pass over so many samples."""
        return samples * sum(self.layers)


@dataclass(frozen=True, slots=True)
class Device:
    """How long learning takes on a node of speed 1. A model of a machine, not this one's clock.

    Either so many samples a second in training and three times as many in measuring, or so many
    FLOP a second, where `costs` says what a sample takes. A merge takes no time.
    """

    samples_per_s: float = 10_000.0
    flops: float = 0.0  # FLOP/s; 0: samples_per_s counts
    costs: Costs | None = None

    def seconds(
        self,
        task: LearnTask,
        trained: Sequence[Range],
        samples: float,
        *,
        held: float,
        by: Scale = FULL,
    ) -> float:
        """Virtual time of a task on a node of speed 1 that holds so many samples.

        `trained` counts the task's layers, `by` is the version of the model that was trained.
        """
        if task.kind not in ("train", "measure"):
            return 0.0
        training = task.kind == "train"
        if self.flops and self.costs is not None:
            costs = self.costs.of(by, [ref.name for ref in task.layers])
            work = (
                costs.training(trained, samples=samples, kept=min(samples, held))
                if training
                else costs.measuring(samples)
            )
            return work / self.flops
        return samples / self.samples_per_s / (1 if training else 3)


def state_bytes(
    task: LearnTask,
    trained: Sequence[Range],
    learn: Mapping[str, Any],
    sizes: Mapping[str, int] | None = None,
) -> int:
    """Model state of a trainer by formula: all weights; of trained layers gradient and moments.

    Activations are not in it, nor residents. `learn`: the plan's options, those of sharing among
    them; Adam has two moments, SGD one or none. `sizes`: bytes of the layers in memory by name,
    where a smaller version of the model is trained.
    """
    from mfd.learn.options import Sharing
    from mfd.learn.stepping import slots_of

    _, options = Sharing.of(learn)
    moments = slots_of(options)
    inside = {i for low, high in trained for i in range(low, high)}
    held = {r.index: r.raw_bytes if sizes is None else sizes.get(r.name, 0) for r in task.layers}
    whole = sum(held.values())
    return whole + (1 + moments) * sum(size for index, size in held.items() if index in inside)


@dataclass(frozen=True, slots=True)
class Work:
    """One task that a node has done."""

    kind: str
    peer: str
    started_s: float
    seconds: float
    samples: float
    trained: tuple[Range, ...]
    state_bytes: int
    claims: Mapping[str, float]


@dataclass(slots=True)
class Tally:
    """What has been counted so far."""

    links_bytes: int = 0  # every byte on every link: headers, heartbeats, routes, each hop again
    objects_bytes: int = (
        0  # layer objects as encoded for the wire, once from custodian to custodian
    )
    samples: float = 0.0  # seen in training, all nodes together
    stops: int = 0  # tasks of training, all nodes together
    by_link: Counter[tuple[str, str]] = field(default_factory=Counter)  # (from, to) -> bytes
    received: Counter[str] = field(default_factory=Counter)  # node -> bytes of layer objects
    store_bytes: dict[str, int] = field(default_factory=dict)  # node -> most that its disk held


class _Node:
    """A learner whose time is that of the device model; tells what it did."""

    def __init__(self, trial: Trial, name: str, learner: Learner, speed: float) -> None:
        self._trial = trial
        self._name = name
        self._learner = learner
        self._speed = speed

    def perform(
        self,
        task: LearnTask,
        read: Callable[[bytes], Buffer],
        write: Callable[[LayerObject], None],
    ) -> LearnResult:
        """Learn for real; claim virtual seconds."""
        result = self._learner.perform(task, read, write)
        trained = result.trained or task.trained
        samples = float(result.claims.get("samples", 0.0))
        held = self._learner.describe(task.name)["samples"] if task.name else samples
        by = _version(task, result.claims)
        seconds = self._trial.device.seconds(task, trained, samples, held=held, by=by) / self._speed
        claims = {k: v for k, v in result.claims.items() if k not in OF_MACHINE}
        claims["seconds"] = seconds
        self._trial.worked(self._name, task, trained, claims, by=by)
        return replace(result, claims=claims)


def _version(task: LearnTask, claims: Mapping[str, float]) -> Scale:
    """Which version of the model a task was done on: what came, or what memory allowed."""
    if task.kind != "train" or task.scale != FULL:
        return task.scale
    return scale_told(decode_plan(task.plan), claims) or FULL


class Trial:
    """A network of simulated peers that hold data, and a tally of what happens in it."""

    def __init__(
        self,
        graph: Topology,
        held: Mapping[str, Mapping[str, Holding]],
        *,
        seed: int,
        device: Device | None = None,
        build: Build | None = None,
        real_keys: bool = False,
        residents: Mapping[str, nn.Module] | None = None,
        common: Mapping[str, Holding] | None = None,
    ) -> None:
        """`residents` are models of nodes' own; `common` is known to all that hold data, untold."""
        self.residents = dict(residents or {})
        self._learners: dict[str, Learner] = {}
        self.device = device or Device()
        self.tally = Tally()
        self.world = World(seed, signatures=Signatures(real=real_keys))
        self.on_work: Callable[[Work], None] = lambda work: None
        self.on_news: Callable[[str, float, Report], None] = lambda node, second, report: None
        for name, node in graph.nodes.items():
            learner = Learner(
                {**held.get(name, {}), **((common or {}) if name in held else {})},
                build=build,
                threads=1,
                memory=node.memory_bytes,
                resident=self.residents.get(name),
            )
            self._learners[name] = learner
            host = self.world.add(
                name,
                learner=_Node(self, name, learner, node.speed),
                config=Config(whole_bytes_max=node.whole_bytes),
            )
            for data_name, holding in held.get(name, {}).items():
                host.hold(data_name, len(holding.x))
        for edge in graph.edges:
            rate = edge.bandwidth_bps / 8 if edge.bandwidth_bps else LINK_BYTES_PER_S
            latency_us = edge.latency_us or LINK_LATENCY_US
            self.world.link(edge.a, edge.b, latency_us=latency_us, bytes_per_s=rate)
        self._plans: dict[bytes, bytes] = {}  # by walker, as signed
        self._home_come: list[str] = []  # walkers, in order of their arrival
        self._failed = ""  # why a node could not learn
        self._part_sizes: dict[tuple[bytes, Scale], Mapping[str, int]] = {}
        self.world.wires.on_frame = self._frame
        self.world.observers.append(self._observe)

    # counting

    def _frame(self, link: Link, side: int, frame: bytes) -> None:
        size = len(frame) + FRAME_HEAD_BYTES
        self.tally.links_bytes += size
        self.tally.by_link[link.hosts[side].name, link.hosts[1 - side].name] += size

    def _observe(self, host: Host, event: Event, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if type(effect) is Keep:
                size = memoryview(effect.body).nbytes
                self.tally.objects_bytes += size
                self.tally.received[host.name] += size
            elif type(effect) is Report and effect.kind in NEWS:
                self._hear(host, effect)

    def _hear(self, host: Host, report: Report) -> None:
        """Take news where it happens, not again where it is told."""
        stored = sum(map(len, host.disk.objects.values()))
        most = self.tally.store_bytes
        most[host.name] = max(stored, most.get(host.name, 0))
        if report.fields.get("peer", "") in ("", host.key.public_key.hex()):
            if report.kind == "arrived":
                self._home_come.append(str(report.fields["walker"]))
            elif report.kind == FAILED and not self._failed:
                self._failed = f"{host.name} could not learn: {report.fields['reason']!s}"
            self.on_news(host.name, self.world.now_us / 1e6, report)

    def worked(
        self,
        name: str,
        task: LearnTask,
        trained: Sequence[Range],
        claims: Mapping[str, float],
        *,
        by: Scale = FULL,
    ) -> None:
        """Count a task that a node's learner has done on a version of the model."""
        samples = claims.get("samples", 0.0)
        if task.kind == "train":
            self.tally.samples += samples
            self.tally.stops += 1
            claims = claims if task.scale == FULL else {**claims, **claims_of(task.scale)}
        taken = trained if task.kind == "train" else ()
        plan = decode_plan(task.plan)
        state = state_bytes(task, taken, plan.learn, self._sizes(plan, task, by))
        started_s = self.world.now_us / 1e6
        work = (task.kind, name, started_s, claims["seconds"], samples, tuple(taken), state, claims)
        self.on_work(Work(*work))

    def _sizes(self, plan: Plan, task: LearnTask, by: Scale) -> Mapping[str, int] | None:
        """Bytes by layer of what was trained, where it is another version than what came."""
        if by == task.scale:
            return None
        key = (task.plan, by)
        if key not in self._part_sizes:
            from mfd.learn.flops import part_bytes

            self._part_sizes[key] = part_bytes(plan.recipe, by)
        return self._part_sizes[key]

    # the journey

    def send(self, plan: Plan, layers: Sequence[tuple[str, LayerObject]]) -> list[bytes]:
        """Let as many walkers as the plan says be born at its home; return their ids."""
        home, born = self._home(plan), []
        user = self.world.signatures.key(b"user")
        for number in range(walkers_of(plan)):
            nonce = plan.seed.to_bytes(8, "little") + number.to_bytes(8, "little")
            birth = bear(plan, layers, user, nonce=nonce)
            for made in birth.objects:
                home.disk.add(made)
            self.world.happen(home, birth.event)
            born.append(birth.walker)
            self._plans[birth.walker] = birth.event.plan
        return born

    def _home(self, plan: Plan) -> Host:
        return next(h for h in self.world.hosts.values() if h.key.public_key == plan.home)

    def bring_home(self, walkers: Sequence[bytes]) -> None:
        """Let time pass until all walkers are home.

        Raises: RunError once nothing moves any more, or where a node could not learn.
        """
        hosts, wanted = list(self.world.hosts.values()), len(walkers)
        told = -1
        while not self.world.run(
            until=lambda: len(self._home_come) >= wanted or bool(self._failed),
            seconds=QUIET_SECONDS,
        ):
            count = sum(len(h.reports) for h in hosts)
            known = [w for h in hosts if h.peer for w in h.peer.status().walkers]
            learning = any(w.activity.startswith("training") for w in known)
            if count == told and not learning:
                states = sorted({w.activity for w in known if w.role == "own"})
                raise RunError(f"the walker did not come home; it is {' and '.join(states)}")
            told = count
        if self._failed:
            raise RunError(self._failed)

    def packet(self, plan: Plan) -> Packet:
        """What came home, with its layers and its plan; of siblings the one that has seen all."""
        home = self._home(plan)
        assert home.peer is not None
        last = self._home_come[-1]
        heir = next(w.heir or last for w in home.peer.status().walkers if w.walker == last)
        version = home.peer.version(bytes.fromhex(heir))
        assert version is not None
        manifest = version.manifest
        objects = {ref.digest: wrap_object(home.disk.read(ref.digest)) for ref in manifest.layers}
        objects[manifest.plan] = wrap_object(self._plans[manifest.walker])
        return Packet(manifest, version.record, version.signature, objects)

    def taught(self) -> dict[str, nn.Module]:
        """Copies of the nodes' residents as they are now."""
        own = {name: self._learners[name].resident for name in self.residents}
        return {name: copy.deepcopy(one.module) for name, one in own.items() if one is not None}

    def names(self) -> dict[str, str]:
        """Peer ids, as reports show them, and the names of their nodes."""
        return {h.key.public_key.hex(): name for name, h in self.world.hosts.items()}

    def plain(self, report: Report) -> dict[str, Any]:
        """The fields of a report with names of nodes instead of ids; without the walker's id."""
        by_id = self.names()
        fields = {k: v for k, v in report.fields.items() if k != "walker"}
        return {k: by_id.get(v, v) if isinstance(v, str) else v for k, v in fields.items()}
