"""How a user makes a walker: plan, genesis and first manifest, all signed by the user's key.

Source: spec/custody.md, section "Genesis".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgpack

from mfd.core.blocks import BASE_KEY
from mfd.core.certificates import Genesis, seal_genesis, walker_id
from mfd.core.custody import PLAN_DOMAIN
from mfd.core.events import Injected
from mfd.packet.manifest import Kind, Manifest, Progress, sign_manifest
from mfd.packet.objects import LayerObject, object_digest
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.signing import Signer, seal
from mfd.packet.task import LayerRef

__all__ = ["Birth", "bear"]

TABLES = {"logits": Kind.LOGITS, "prototypes": Kind.PROTOTYPES}


@dataclass(frozen=True, slots=True)
class Birth:
    """Everything that the first owner needs; the objects go into its store."""

    walker: bytes
    event: Injected
    objects: tuple[LayerObject, ...]


def _kind_of(plan: Plan) -> Kind:
    """What the layers of a plan's walker hold: a model, adapters on a base, or a shared table."""
    if BASE_KEY in plan.extra:
        return Kind.ADAPTER
    share = plan.learn.get("share") if plan.mode == "distill" else None
    return TABLES.get(str(share), Kind.LAYERS)


def bear(
    plan: Plan,
    layers: Sequence[tuple[str, LayerObject]],
    signer: Signer,
    *,
    nonce: bytes,
    copies: int = 2,
    reissue: str = "auto",
    software: str = "mfd",
) -> Birth:
    """Make a walker of named layer objects, in order. `nonce`: 16 bytes of chance.

    Where the plan tells of a frozen base, the model is one of adapters (P-29).
    """
    plan_record = seal(PLAN_DOMAIN, encode_plan(plan), signer)
    shape = [[name, layer.raw_bytes] for name, layer in layers]
    model = object_digest(msgpack.packb(shape))
    genesis = Genesis(signer.public_key, nonce, model, object_digest(plan_record), copies, reissue)
    record = seal_genesis(genesis, signer)
    manifest = Manifest(
        walker=walker_id(record),
        model=model,
        seq=0,
        parents=(),
        trained=(),
        layers=tuple(
            LayerRef(index, name, layer.digest, layer.raw_bytes)
            for index, (name, layer) in enumerate(layers)
        ),
        plan=genesis.plan,
        kind=_kind_of(plan),
        progress=Progress(),
        claims={},
        software=software,
        trainer=signer.public_key,
    )
    manifest_record, signature = sign_manifest(manifest, signer)
    return Birth(
        manifest.walker,
        Injected(record, plan_record, manifest_record, signature),
        tuple(layer for _, layer in layers),
    )
