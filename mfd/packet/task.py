"""What a trainer is asked to do with a model, and what it answers: values between processes.

Rules of this file: the core writes tasks, a learner reads them; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mfd.packet.extent import FULL, Scale, plain_scale, read_scale

__all__ = ["LEFT_OUT", "LayerRef", "LearnResult", "LearnTask", "Range", "Sibling"]

Range = tuple[int, int]  # layers lo..hi, hi excluded
LEFT_OUT = {  # claim `out0`, `out1`, ...: why a merge did without that sibling (W-48)
    1: "a number in it is not finite",
    2: "it is too far away",
    3: "its loss on the data here is worse",
    4: "its layers are not those of this model",
}
TaskKind = Literal["train", "measure", "merge", "cut"]


@dataclass(frozen=True, slots=True)
class LayerRef:
    """One layer of a model by the digest of its content (spec/packet.md, manifest key 8)."""

    index: int
    name: str
    digest: bytes  # 32 bytes: the root of the canonical layer object
    raw_bytes: int  # size of the canonical layer object


@dataclass(frozen=True, slots=True)
class Sibling:
    """A version to be merged: its layers and its weight (samples seen)."""

    layers: tuple[LayerRef, ...]
    weight: float
    shares: tuple[float, ...] = ()  # its weight in each layer, 0: no part in it; empty: `weight`
    scale: Scale = FULL  # what of the model it has trained: the rest of it counts for nothing
    cut: bool = False  # its layers are those of that scale, by name; else those of the full model

    def share(self, layer: int) -> float:
        """Return its weight in one layer."""
        return self.shares[layer] if self.shares else self.weight


@dataclass(frozen=True, slots=True)
class LearnTask:
    """One job for a learner."""

    kind: TaskKind
    plan: bytes  # the encoded plan (mfd.packet.plan)
    layers: tuple[LayerRef, ...]  # the whole model, in order
    name: str = ""  # the data name to train or measure on
    trained: tuple[Range, ...] = ()  # which layers may change; empty for measure and merge
    body: Range | None = None  # the part of `trained` that is taken by blocks; None: all at once
    block: int = 0  # layers of a block; 0: as many as the peer's memory allows
    sweep: bool = False  # all blocks, one after the other; else only the first one
    journey: tuple[float, float] = (0.0, 1.0)  # part of the whole journey that this stop covers
    seed: int = 0
    siblings: tuple[Sibling, ...] = ()  # merge only
    rule: str = "mean"  # merge only: how (spec/walk.md, W-47)
    radius: float = 0.0  # merge only, of clip and near: part of the norm of a layer of `layers`
    gate: float | None = None  # merge only: how much worse a loss on `name` may be (W-48)
    scale: Scale = FULL  # train only: what of the plan's model `layers` are
    most_bytes: int = 0  # cut only: of the layers together; the first of the plan's scales below

    def to_wire(self) -> dict[str, Any]:
        """Plain values for MessagePack."""
        return {
            "kind": self.kind,
            "plan": self.plan,
            "layers": _layers_to_wire(self.layers),
            "name": self.name,
            "trained": [list(r) for r in self.trained],
            "body": None if self.body is None else list(self.body),
            "block": self.block,
            "sweep": self.sweep,
            "journey": list(self.journey),
            "seed": self.seed,
            "siblings": [
                [_layers_to_wire(s.layers), s.weight, list(s.shares), plain_scale(s.scale), s.cut]
                for s in self.siblings
            ],
            "rule": self.rule,
            "radius": self.radius,
            "gate": self.gate,
            "scale": plain_scale(self.scale),
            "most_bytes": self.most_bytes,
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> LearnTask:
        """The inverse of `to_wire`; the other end is our own child process, so no limits here."""
        return cls(
            kind=wire["kind"],
            plan=wire["plan"],
            layers=_layers_from_wire(wire["layers"]),
            name=wire["name"],
            trained=_ranges_from_wire(wire["trained"]),
            body=_ranges_from_wire([wire["body"]])[0] if wire.get("body") else None,
            block=int(wire.get("block", 0)),
            sweep=bool(wire.get("sweep", False)),
            journey=(float(wire["journey"][0]), float(wire["journey"][1])),
            seed=int(wire["seed"]),
            siblings=tuple(
                Sibling(
                    _layers_from_wire(ls),
                    float(w),
                    tuple(map(float, shares)),
                    read_scale(scale) or FULL,
                    bool(cut),
                )
                for ls, w, shares, scale, cut in wire["siblings"]
            ),
            rule=str(wire["rule"]),
            radius=float(wire["radius"]),
            gate=None if wire["gate"] is None else float(wire["gate"]),
            scale=read_scale(wire["scale"]) or FULL,
            most_bytes=int(wire["most_bytes"]),
        )


@dataclass(frozen=True, slots=True)
class LearnResult:
    """What a learner made: only the layers that changed, and what it claims of them."""

    layers: tuple[LayerRef, ...] = ()
    claims: Mapping[str, float] = field(default_factory=dict)
    """samples, steps, loss_before, loss (after), accuracy, seconds, peak_bytes: what applies."""
    trained: tuple[Range, ...] = ()  # which layers took part, where the learner chose them

    def to_wire(self) -> dict[str, Any]:
        """Plain values for MessagePack."""
        return {
            "layers": _layers_to_wire(self.layers),
            "claims": dict(self.claims),
            "trained": [list(r) for r in self.trained],
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> LearnResult:
        """The inverse of `to_wire`."""
        claims = {str(k): float(v) for k, v in wire["claims"].items()}
        trained = _ranges_from_wire(wire.get("trained", []))
        return cls(_layers_from_wire(wire["layers"]), claims, trained)


def _ranges_from_wire(wire: list[list[Any]]) -> tuple[Range, ...]:
    return tuple((int(low), int(high)) for low, high in wire)


def _layers_to_wire(layers: tuple[LayerRef, ...]) -> list[list[Any]]:
    return [[ref.index, ref.name, ref.digest, ref.raw_bytes] for ref in layers]


def _layers_from_wire(wire: list[list[Any]]) -> tuple[LayerRef, ...]:
    return tuple(LayerRef(int(i), str(n), bytes(d), int(b)) for i, n, d, b in wire)
