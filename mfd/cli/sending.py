"""A model on its way into the network and back: make a walker, fetch it, write its tensors.

Rules of this file: torch is loaded by `build` alone; what comes from a peer is decoded by
mfd.packet and never executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
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
from mfd.packet.tensors import DTYPES, Tensor

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "make_walker", "open_model", "save", "user_key"]

HEADER_ALIGN = 8  # safetensors: the header is padded with blanks
NONCE_BYTES = 16
RENAMED = {
    "f8_e4m3fn": "F8_E4M3",
    "f8_e5m2": "F8_E5M2",
}  # else safetensors uses our names in capitals
FOREIGN = ("c32", "c128", "f4_e2m1fn_x2")  # safetensors has nothing for these


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
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        module.load_state_dict(load_file(str(path)))
    except (OSError, SafetensorError) as exc:
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
        draft = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            with draft.open("xb") as file:
                file.writelines(parts)
            draft.rename(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as exc:
        raise CommandError(f"{path} cannot be written: {exc.strerror}") from exc
    except PacketError as exc:
        raise CommandError(f"the model cannot be read: {exc}") from exc


def _safetensors(packet: Packet) -> list[Buffer]:
    """The parts of a safetensors file: u64 header bytes | JSON header | tensors, as they lie."""
    tensors: dict[str, Tensor] = {}
    for ref in packet.manifest.layers:
        if ref.digest not in packet.objects:
            raise CommandError(f"layer {ref.name!r} is not in the packet: get the whole model")
        tensors.update(packet.layer(ref.index))
    for name, tensor in tensors.items():
        if tensor.dtype in FOREIGN:
            raise CommandError(f"safetensors has no {tensor.dtype} ({name}): save as .mfd instead")
    # The widest first, so that every tensor stays aligned.
    widths = {name: DTYPES[tensor.dtype][0] for name, tensor in tensors.items()}
    tensors = {name: tensors[name] for name in sorted(tensors, key=lambda n: (-widths[n], n))}
    header: dict[str, Any] = {
        "__metadata__": {"format": "pt", "mfd.walker": packet.manifest.walker.hex()}
    }
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.data.nbytes
        dtype = RENAMED.get(tensor.dtype, tensor.dtype.upper())
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGN)
    return [len(text).to_bytes(8, "little"), text, *(tensor.data for tensor in tensors.values())]
