"""A model on its way into the network and back: make a walker, fetch it, write its tensors.

Rules of this file: torch is loaded by `build` alone; what comes from a peer is decoded by
mfd.packet and never executed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mfd
from mfd.cli.errors import CommandError, Misuse
from mfd.core.birth import bear
from mfd.net.injection import pack_injection
from mfd.net.keys import KeyFileError, KeyPair, verify
from mfd.packet.chunks import Encoding
from mfd.packet.errors import PacketError
from mfd.packet.manifest import decode_manifest
from mfd.packet.objects import Buffer, LayerObject
from mfd.packet.packet import Packet, decode, encode
from mfd.packet.plan import Plan
from mfd.packet.safetensors import map_safetensors, write_safetensors
from mfd.packet.states import State, to_state_dict

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "make_walker", "open_model", "save", "user_key", "write_whole"]

NONCE_BYTES = 16


def user_key(path: Path | None) -> KeyPair:
    """The key that signs this user's plans, made on first use. Raises: Misuse."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    try:
        return KeyPair.load_or_create(path or home / "mfd" / "key")
    except KeyFileError as exc:
        raise Misuse(str(exc)) from exc


def build(recipe: Mapping[str, Any], *, seed: int = 0, init: Path | None = None) -> nn.Module:
    """Make the module of a recipe, with the tensors of a safetensors file where one is given.

    Raises: Misuse.
    """
    try:
        from mfd.learn import zoo
    except ImportError as exc:
        raise Misuse(f"building models needs {exc.name}: pip install 'mfd[learn]'") from exc
    try:
        module = zoo.init(recipe, seed)
    except (ValueError, TypeError) as exc:
        raise Misuse(str(exc)) from exc
    if init is not None:
        _load_into(module, init)
    return module


def _load_into(module: nn.Module, path: Path) -> None:
    try:
        found = map_safetensors(path)
        module.load_state_dict(to_state_dict(State(found.tensors, found.aliases)))
    except (OSError, PacketError) as exc:
        raise Misuse(f"model {path} cannot be read: {exc}") from exc
    except RuntimeError as exc:
        reason = " ".join(str(exc).split())[:300]
        raise Misuse(f"model {path} does not fit the recipe: {reason}") from exc


def make_walker(module: nn.Module, plan: Plan, keys: KeyPair) -> tuple[str, list[Buffer]]:
    """Sign a walker and return its id and its injection file. Raises: Misuse."""
    from mfd.learn.errors import LearnError
    from mfd.learn.layers import find_layers, pack
    from mfd.learn.training import Options

    try:
        Options.of(plan.learn)
        layers = [(layer.name, pack(module, layer)) for layer in find_layers(module)]
    except LearnError as exc:
        raise Misuse(str(exc)) from exc
    software = f"mfd {mfd.__version__}"
    birth = bear(plan, layers, keys, nonce=os.urandom(NONCE_BYTES), software=software)
    event = birth.event
    objects: dict[bytes, LayerObject] = {item.digest: item for item in birth.objects}
    packet = Packet(decode_manifest(event.manifest), event.manifest, event.signature, objects)
    parts = pack_injection(event.genesis, event.plan, encode(packet, Encoding.RAW))
    return birth.walker.hex(), parts


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


def save(packet: Packet, body: Buffer, path: Path) -> None:
    """Write a model as `.safetensors`, or the packet itself as `.mfd`. Raises: CommandError."""
    try:
        parts: Iterable[Buffer] = [body] if path.suffix == ".mfd" else _safetensors(packet)
    except PacketError as exc:
        raise CommandError(f"the model cannot be read: {exc}") from exc
    write_whole(path, parts)


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
    layers = {
        layer: {name: t for name, t in named.items() if not name.startswith("~")}
        for layer, named in packet.tensors().items()
    }
    count = sum(map(len, layers.values()))
    tensors = {name: t for layer in layers.values() for name, t in layer.items()}
    if len(tensors) < count:
        tensors = {f"{layer}.{k}": t for layer, named in layers.items() for k, t in named.items()}
    if len(tensors) < count:
        raise CommandError("safetensors has no layers, and some tensors here share a name")
    notes = {"format": "pt", "mfd.walker": packet.manifest.walker.hex()}
    try:
        return write_safetensors(tensors, notes)
    except ValueError as exc:
        raise CommandError(str(exc)) from exc
