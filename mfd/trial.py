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
from mfd.core.events import Event, Held
from mfd.core.sources import label_shares
from mfd.learn.devices import Costs, Device, Lesson, resident_state, state_bytes
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

__all__ = ["Costs", "Device", "Lesson", "RunError", "Tally", "Trial", "Work", "state_bytes"]

LINK_LATENCY_US = 1_000  # where the topology does not say
LINK_BYTES_PER_S = 125e6
QUIET_SECONDS = 300.0  # virtual; longer than any timer that could still move a walker
FRAME_HEAD_BYTES = 4  # of a frame on a link
CAPACITY = 1_000  # that a node of speed 1 announces
FAILED = "learning failed"
NEWS = ("chosen", "part", "stop", "merged", "measured", "reissued", FAILED, "arrived")
OF_MACHINE = ("peak_bytes", "taken_bytes")  # claims that tell of this machine, not of the device


class RunError(RuntimeError):
    """The walker did not come home; the sentence says what it was waiting for."""


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
        seconds = self._trial.device.seconds(
            task, trained, samples, held=held, by=by, peer=self._name
        )
        seconds /= self._speed
        claims = {k: v for k, v in result.claims.items() if k not in OF_MACHINE}
        claims["seconds"] = seconds
        self._trial.worked(self._name, task, trained, claims, by=by)
        return replace(result, claims=claims)


def _version(task: LearnTask, claims: Mapping[str, float]) -> Scale:
    """Which version of the model a task was done on: what came, or what memory allowed."""
    if task.kind != "train" or task.scale != FULL:
        return task.scale
    return scale_told(decode_plan(task.plan), claims) or FULL


def _told(name: str, holding: Holding) -> Held:
    """Data with its rounded labels, as an owner offers it who lets the network know them."""
    counts = {int(label): count for label, count in holding.labels().items()}
    return Held(name, len(holding.x), label_shares(counts) if counts else b"")


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
        choose: str = "",
    ) -> None:
        """`residents` are models of nodes' own; `common` is known to all that hold data, untold.

        `choose`: the plans' policy; holders announce what it goes by, their labels or capacity.
        """
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
                config=Config(
                    whole_bytes_max=node.whole_bytes,
                    capacity=round(CAPACITY * node.speed) if choose == "capacity" else 0,
                ),
            )
            for data_name, holding in held.get(name, {}).items():
                if choose == "labels":
                    self.world.happen(host, _told(data_name, holding))
                else:
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
        if plan.mode == "distill" and name in self.residents and task.name:
            state += resident_state(self.residents[name], plan.learn, learns=task.kind == "train")
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
