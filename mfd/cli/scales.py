"""`mfd scale`: a smaller version of a model in a file, and the recipe that builds it.

Rules of this file: torch is loaded only for a safetensors file, whose layers a recipe must tell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from mfd.cli.errors import CommandError, Misuse
from mfd.cli.packets import check, open_packet
from mfd.cli.plans import parse_recipe, recipe_text
from mfd.cli.saving import RECIPE_NOTE, noted_recipe, write_whole
from mfd.cli.sending import build
from mfd.cli.view import data_size, print_json
from mfd.packet.chunks import Encoding
from mfd.packet.errors import PacketError
from mfd.packet.limits import CLAIM_TEXT_BYTES_MAX
from mfd.packet.manifest import Manifest, Scale, version_of
from mfd.packet.objects import pack_layer
from mfd.packet.packet import Packet, encode
from mfd.packet.plan import decode_plan
from mfd.packet.safetensors import map_safetensors, write_safetensors
from mfd.packet.scaling import Axes, scale
from mfd.packet.signing import KEY_BYTES, SIGNATURE_BYTES
from mfd.packet.task import LayerRef
from mfd.packet.tensors import Tensor

__all__ = ["scale_file"]

SCALE_NOTE = "mfd.scale"  # in the notes of a file that is a smaller version: WIDTH:DEPTH:BITS
Recipe = Mapping[str, Any]
Layers = dict[str, dict[str, Tensor]]


def scale_file(
    source: Path,
    out: Path,
    *,
    width: str,
    depth: str,
    bits: int,
    recipe: str | None,
    as_json: bool,
) -> None:
    """Write the version of `source` that a scale tells. Raises: CommandError, Misuse."""
    from mfd.learn.axes import axes_of, scaled_recipe

    if out.suffix not in (".mfd", ".safetensors"):
        raise Misuse(f"{out}: what is written is .mfd or .safetensors")
    packet = _open(source, recipe)
    if packet.manifest.scale != Scale():
        raise CommandError(f"{source} is a scaled version already: scale the full one")
    known = parse_recipe(recipe) if recipe else _recipe_in(source, packet)
    _check_zoo(source, known)
    try:
        axes = Axes.of(known["axes"] if "axes" in known else axes_of(known))
        by = Scale(Fraction(width), _blocks(depth, len(axes.blocks)), bits)
        made = scale(packet, by, axes)
        small = scaled_recipe(known, by)
    except (ValueError, TypeError, ZeroDivisionError, PacketError) as exc:
        raise CommandError(f"{source} cannot be scaled so: {exc}") from exc
    if out.suffix == ".mfd":
        write_whole(out, encode(_packet(packet, made, by, small), Encoding.PLANES))
    else:
        tensors = {name: tensor for layer in made.values() for name, tensor in layer.items()}
        notes = {
            "format": "pt",
            RECIPE_NOTE: json.dumps(small, sort_keys=True),
            SCALE_NOTE: f"{by.share}:{by.depth}:{by.bits}",
        }
        write_whole(out, write_safetensors(tensors, notes))
    facts = {
        "source": str(source),
        "out": str(out),
        "width": str(by.share),
        "depth": by.depth or len(axes.blocks),
        "bits": by.bits,
        "recipe": small,
        "parameters": _count(made),
        "parameters_before": _count(packet.tensors()),
        "bytes": out.stat().st_size,
    }
    if as_json:
        print_json(facts)
        return
    print(
        f"{out}: {facts['parameters']} of {facts['parameters_before']} parameters, "
        f"{data_size(out.stat().st_size)}"
    )
    print(f"recipe: {recipe_text(small)}")


def _blocks(text: str, blocks: int) -> int:
    """How many blocks `0.5` or `2` keeps of so many; 0: all. Raises: ValueError."""
    share = Fraction(text)
    if not blocks and share in (0, 1):
        return 0
    if not blocks:
        raise ValueError("only a model with an exit after every block has a depth: exits=true")
    if share < 0 or (share > 1 and share.denominator > 1):
        raise ValueError(f"depth {text} is neither a part of the blocks nor a number of them")
    return ceil(share * blocks) % blocks if 0 < share < 1 else int(share)


def _open(source: Path, recipe: str | None) -> Packet:
    if source.suffix != ".safetensors":
        packet = open_packet(source)
        check(source, packet)
        return packet
    known = parse_recipe(recipe) if recipe else noted_recipe(_notes(source))
    if known is None:
        raise Misuse(f"{source} does not tell its layers: say --recipe cnn:inputs=1x8x8,classes=10")
    _check_zoo(source, known)
    if SCALE_NOTE in _notes(source):
        raise CommandError(f"{source} is a scaled version already: scale the full one")
    module = build(known, init=source)
    from mfd.learn.layers import find_layers

    state = module.state_dict()
    return Packet.from_tensors(
        {layer.name: {key: state[key] for key in layer.tensors} for layer in find_layers(module)}
    )


def _check_zoo(source: Path, recipe: Recipe) -> None:
    if "hf" in recipe:
        raise CommandError(
            f"{source} is a model of Hugging Face: only models of the zoo are scaled"
        )


def _notes(source: Path) -> Mapping[str, str]:
    try:
        return map_safetensors(source).metadata
    except (OSError, PacketError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise Misuse(f"model {source} cannot be read: {reason}") from exc


def _recipe_in(source: Path, packet: Packet) -> Recipe:
    """The recipe that a file tells, or the plan in a packet. Raises: Misuse where none does."""
    if source.suffix == ".safetensors" and (told := noted_recipe(_notes(source))) is not None:
        return told
    if packet.manifest.plan not in packet.objects:
        raise Misuse(f"{source} does not carry its plan: say --recipe cnn:inputs=1x8x8,classes=10")
    try:
        record = bytes(packet.object(packet.manifest.plan))
        return decode_plan(record[KEY_BYTES + SIGNATURE_BYTES :]).recipe
    except PacketError as exc:
        raise CommandError(f"the plan in {source} cannot be read: {exc}") from exc


def _packet(packet: Packet, layers: Layers, by: Scale, recipe: Recipe) -> Packet:
    """A version that nobody signed: its parent is the full one, its claims name the recipe."""
    packed = {name: pack_layer(tensors) for name, tensors in layers.items()}
    refs = tuple(
        LayerRef(i, name, made.digest, made.raw_bytes)
        for i, (name, made) in enumerate(packed.items())
    )
    text = recipe_text(recipe)
    told = {"recipe": text} if len(text.encode()) <= CLAIM_TEXT_BYTES_MAX else {}
    before = packet.manifest
    manifest: Manifest = replace(
        before,
        seq=before.seq + 1,
        layers=refs,
        parents=(version_of(packet.manifest_bytes),),
        trained=(),
        scale=by,
        claims=told,
    )
    objects = {made.digest: made for made in packed.values()}
    return Packet.of(manifest, tuple(objects.values()))


def _count(layers: Mapping[str, Mapping[str, Tensor]]) -> int:
    return sum(int(tensor.array().size) for layer in layers.values() for tensor in layer.values())
