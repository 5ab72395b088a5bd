"""A model on its way into the network: build it, make it a walker, sign it.

Rules of this file: torch is loaded by `build` alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mfd
from mfd.cli.errors import Misuse
from mfd.core.birth import bear
from mfd.net.injection import pack_injection
from mfd.net.keys import KeyFileError, KeyPair
from mfd.packet.chunks import Encoding
from mfd.packet.errors import PacketError
from mfd.packet.manifest import decode_manifest
from mfd.packet.objects import Buffer, LayerObject
from mfd.packet.packet import Packet, encode
from mfd.packet.plan import Plan
from mfd.packet.safetensors import map_safetensors
from mfd.packet.states import State, to_state_dict

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "load_into", "make_walker", "user_key"]

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
        from mfd.learn import recipes
    except ImportError as exc:
        raise Misuse(f"building models needs {exc.name}: pip install 'mfd[learn]'") from exc
    try:
        module = recipes.init(recipe, seed)
    except (ValueError, TypeError) as exc:
        raise Misuse(str(exc)) from exc
    if init is not None:
        load_into(module, init)
    return module


def load_into(module: nn.Module, path: Path) -> None:
    """Put the tensors of a safetensors file into a module. Raises: Misuse."""
    from mfd.learn.finding import tied_names

    try:
        found = map_safetensors(path)
        brought = to_state_dict(State(found.tensors, found.aliases))
        for name, owner in tied_names(module).items():  # files hold a tied tensor once
            if owner in brought:
                brought.setdefault(name, brought[owner])
            elif name in brought:
                brought[owner] = brought[name]
        if (wrong := _misfit(module, brought)) is not None:
            raise Misuse(f"model {path} does not fit the recipe: {wrong}")
        module.load_state_dict(brought)
    except (OSError, PacketError) as exc:
        told = getattr(exc, "strerror", None) or exc
        raise Misuse(f"model {path} cannot be read: {told}") from exc
    except RuntimeError as exc:
        reason = " ".join(str(exc).split())[:300]
        raise Misuse(f"model {path} does not fit the recipe: {reason}") from exc


def _misfit(module: nn.Module, brought: Mapping[str, Any]) -> str | None:
    """What of a file is not of a module, by the first name, or None."""
    own = module.state_dict()
    missing = [name for name in own if name not in brought]
    foreign = [name for name in brought if name not in own]
    unlike = [n for n, t in own.items() if n in brought and brought[n].shape != t.shape]
    if unlike:
        name = unlike[0]
        theirs, ours = (tuple(found[name].shape) for found in (brought, own))
        return f"{len(unlike)} tensors have another shape, such as {name}: {theirs}, not {ours}"
    if missing or foreign:
        told = [f"{len(missing)} tensors are missing, such as {missing[0]}"] if missing else []
        told += [f"{len(foreign)} are not of it, such as {foreign[0]}"] if foreign else []
        return ", ".join(told)
    return None


def make_walker(module: nn.Module, plan: Plan, keys: KeyPair) -> tuple[str, list[Buffer]]:
    """Sign a walker and return its id and its injection file. Raises: Misuse."""
    from mfd.learn.errors import LearnError
    from mfd.learn.layers import find_layers, pack
    from mfd.learn.sharing import Sharing
    from mfd.learn.training import Options

    try:
        if plan.mode == "distill":
            Sharing.of(plan.learn)
        else:
            Options.of(plan.learn)
        layers = [(layer.name, pack(module, layer)) for layer in find_layers(module)]
    except LearnError as exc:
        raise Misuse(str(exc)) from exc
    software = f"mfd {mfd.__version__}"
    nonce = os.urandom(NONCE_BYTES)
    birth = bear(plan, layers, keys, nonce=nonce, software=software)
    event = birth.event
    objects: dict[bytes, LayerObject] = {item.digest: item for item in birth.objects}
    packet = Packet(decode_manifest(event.manifest), event.manifest, event.signature, objects)
    parts = pack_injection(event.genesis, event.plan, encode(packet, Encoding.RAW))
    return birth.walker.hex(), parts
