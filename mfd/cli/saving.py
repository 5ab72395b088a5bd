"""A model that came home, as files: tensors, a packet, or a folder that Hugging Face reads.

Rules of this file: what comes from a peer is decoded by mfd.packet and never executed; a file
appears when it is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mfd.cli.errors import CommandError
from mfd.core.blocks import BASE_KEY
from mfd.net.keys import verify
from mfd.packet.carried import CarriedObject
from mfd.packet.errors import PacketError
from mfd.packet.limits import PLAN_BYTES_MAX
from mfd.packet.manifest import Kind
from mfd.packet.objects import Buffer
from mfd.packet.packet import Packet, decode
from mfd.packet.plan import PLAN_DOMAIN, Plan, decode_plan
from mfd.packet.safetensors import write_safetensors
from mfd.packet.signing import open_sealed

__all__ = [
    "RECIPE_NOTE",
    "check_out",
    "noted_recipe",
    "open_model",
    "plan_of",
    "save",
    "write_whole",
    "wrong_folder",
]

RECIPE_NOTE = "mfd.recipe"  # in the notes of a safetensors file: JSON, which model it is
ENDINGS = (".safetensors", ".mfd")


def open_model(body: Buffer, source: str) -> Packet:
    """Read a packet that came from a peer or a file, and check signature and content.

    Raises: CommandError.
    """
    try:
        packet = decode(body, verify)
        packet.check()
    except PacketError as exc:
        raise CommandError(f"{source} is not a sound packet: {exc}") from exc
    return packet


def plan_of(packet: Packet) -> Plan | None:
    """The plan that a packet carries, or None. Raises: PacketError."""
    item = packet.objects.get(packet.manifest.plan)
    if item is None:
        return None
    if isinstance(item, CarriedObject):
        record = b"".join(bytes(item.raw_chunk(i)) for i in range(len(item.chunks)))
    else:
        record = item.tobytes()
    _, body = open_sealed(PLAN_DOMAIN, record, verify, PLAN_BYTES_MAX)
    return decode_plan(body)


def check_out(out: Path) -> str | None:
    """What is wrong with a place for a model, or None: a file, or a folder without an ending."""
    if out.suffix not in (*ENDINGS, ""):
        return f"--out {out}: a model is saved as {', '.join(ENDINGS)}, or in a folder"
    if not out.absolute().parent.is_dir():
        return f"--out {out}: there is no folder {out.absolute().parent}"
    return None


def wrong_folder(out: Path, plan: Plan | None) -> str | None:
    """Why the model of a plan cannot fill the folder `out`, or None: it can, or `out` is a file."""
    if out.suffix in ENDINGS or (plan is not None and "hf" in plan.recipe):
        return None
    return (
        f"--out {out}: only a model of Hugging Face fills a folder; name a file, as "
        f"{out.name or 'model'}.safetensors"
    )


def save(packet: Packet, body: Buffer, path: Path) -> None:
    """Write a model as `.safetensors`, the packet itself as `.mfd`, or a folder.

    Adapters are written under PEFT's own names, without their base.
    Raises: CommandError.
    """
    try:
        if path.suffix == ".mfd":
            write_whole(path, [body])
        elif path.suffix == ".safetensors":
            write_whole(path, _safetensors(packet))
        else:
            _save_folder(packet, path)
    except PacketError as exc:
        raise CommandError(f"the model cannot be read: {exc}") from exc


def _save_folder(packet: Packet, folder: Path) -> None:
    """Write what `from_pretrained` of transformers or PEFT reads."""
    plan = plan_of(packet)
    if (wrong := wrong_folder(folder, plan)) is not None:
        raise CommandError(wrong)
    assert plan is not None
    try:
        from mfd.learn import hf, lora

        adapter = "lora" in plan.recipe
        config = (lora.adapter_config if adapter else hf.config_json)(plan.recipe)
    except (ImportError, ValueError) as exc:
        raise CommandError(f"the configuration cannot be written: {exc}") from exc
    try:
        folder.mkdir(exist_ok=True)
    except OSError as exc:
        raise CommandError(f"{folder} cannot be made: {exc.strerror}") from exc
    write_whole(folder / f"{'adapter_' * adapter}config.json", [config.encode()])
    name = f"{'adapter_' * adapter}model.safetensors"
    write_whole(folder / name, _safetensors(packet))


def write_whole(
    path: Path, parts: Iterable[Buffer], check: Callable[[Path], object] | None = None
) -> None:
    """Write a file that appears when it is whole, and has passed `check`. Raises: CommandError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        try:
            with draft.open("xb") as file:
                file.writelines(parts)
            if check is not None:
                check(draft)
            draft.rename(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as exc:
        raise CommandError(f"{path} cannot be written: {exc.strerror}") from exc


def _safetensors(packet: Packet) -> list[Buffer]:
    """All tensors of the model by name (P-06); where layers share one, all as "layer.name"."""
    for ref in packet.manifest.layers:
        if ref.digest not in packet.objects:
            raise CommandError(f"layer {ref.name!r} is not in the packet: get the whole model")
    layers: dict[str, dict[str, Any]] = {
        layer: {name: t for name, t in named.items() if not name.startswith("~")}
        for layer, named in packet.tensors().items()
    }
    if packet.manifest.kind is Kind.ADAPTER:
        layers = _adapters(packet, layers)
    count = sum(map(len, layers.values()))
    tensors = {name: t for layer in layers.values() for name, t in layer.items()}
    if len(tensors) < count:
        tensors = {f"{layer}.{k}": t for layer, named in layers.items() for k, t in named.items()}
    if len(tensors) < count:
        raise CommandError("safetensors has no layers, and some tensors here share a name")
    notes = {"format": "pt", "mfd.walker": packet.manifest.walker.hex(), **_recipe_note(packet)}
    try:
        return write_safetensors(tensors, notes)
    except ValueError as exc:
        raise CommandError(str(exc)) from exc


def _recipe_note(packet: Packet) -> dict[str, str]:
    """Which model the whole file is; adapters alone are none."""
    if packet.manifest.kind is Kind.ADAPTER:
        return {}
    try:
        plan = plan_of(packet)
        return {} if plan is None else {RECIPE_NOTE: json.dumps(plan.recipe, sort_keys=True)}
    except (PacketError, TypeError):  # the tensors are good without it
        return {}


def noted_recipe(notes: Mapping[str, str]) -> dict[str, Any] | None:
    """The recipe in the notes of a safetensors file, where it is one of the zoo or of HF."""
    try:
        told = json.loads(notes.get(RECIPE_NOTE, "null"))
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and ("zoo" in told or "hf" in told) else None


def _adapters(packet: Packet, layers: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The layers above the frozen base, under PEFT's names."""
    plan = plan_of(packet)
    base = 0 if plan is None else plan.extra.get(BASE_KEY, 0)
    if not base:
        raise CommandError("the packet of an adapter does not carry its plan: get it from a peer")
    from mfd.learn.errors import LearnError
    from mfd.learn.lora import adapter_name

    names = [ref.name for ref in packet.manifest.layers[base:]]
    try:
        return {name: {adapter_name(k): t for k, t in layers[name].items()} for name in names}
    except LearnError as exc:
        raise CommandError(str(exc)) from exc
