"""A model on its way into the network: build it, make it a walker, sign it.

Rules of this file: torch is loaded by `build` alone.
"""

from __future__ import annotations

import os
import sys
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
NAMED_MAX = 3  # tensors in a sentence


def user_key(path: Path | None) -> KeyPair:
    """The key that signs this user's plans, made on first use. Raises: Misuse."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    place = path or home / "mfd" / "key"
    fresh = not place.exists()
    try:
        keys = KeyPair.load_or_create(place)
    except KeyFileError as exc:
        raise Misuse(str(exc)) from exc
    if fresh:  # a slip in --key would be a new signer that nobody knows
        print(f"mfd: made a new key, {place}", file=sys.stderr)
    return keys


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
    except OSError as exc:
        raise Misuse(f"--init {path} cannot be read: {exc.strerror or exc}") from exc
    except (PacketError, KeyError) as exc:
        if path.suffix == ".mfd":
            made = f"mfd packet convert {path} {path.with_suffix('.safetensors')}"
            raise Misuse(f"--init {path} is a packet, not safetensors: `{made}` makes it") from exc
        raise Misuse(f"--init {path} is not a sound safetensors file: {exc}") from exc
    try:
        for name, owner in tied_names(module).items():  # files hold a tied tensor once
            if owner in brought:
                brought.setdefault(name, brought[owner])
            elif name in brought:
                brought[owner] = brought[name]
        if wrong := _unlike(module.state_dict(), brought):
            raise Misuse(f"--init {path} does not fit the recipe: {wrong}")
        module.load_state_dict(brought)
    except RuntimeError as exc:
        reason = " ".join(str(exc).split())[:300]
        raise Misuse(f"--init {path} does not fit the recipe: {reason}") from exc


def _unlike(wanted: Mapping[str, Any], brought: Mapping[str, Any]) -> str:
    """Say in which tensors a file differs from the model; empty where it fits."""
    parts = [
        f"{name} is {_form(brought[name])} there and {_form(tensor)} in the model"
        for name, tensor in wanted.items()
        if name in brought and _form(brought[name]) != _form(tensor)
    ]
    if lacking := [name for name in wanted if name not in brought]:
        parts.append(f"it lacks {_some(lacking)}")
    if strange := [name for name in brought if name not in wanted]:
        parts.append(f"it has {_some(strange)}, which the model has not")
    return _some(parts, "; ")


def _form(tensor: Any) -> str:
    """Shape, and whether it has fractions: another width of floats is laid into the model's own."""
    kind = "" if tensor.is_floating_point() else " of whole numbers"
    return f"{' x '.join(map(str, tensor.shape)) or 'one'}{kind}"


def _some(words: list[str], between: str = ", ") -> str:
    more = [f"{len(words) - NAMED_MAX} more"] if len(words) > NAMED_MAX else []
    return between.join([*words[:NAMED_MAX], *more])


def make_walker(module: nn.Module, plan: Plan, keys: KeyPair) -> tuple[str, list[Buffer]]:
    """Sign a walker and return its id and its injection file. Raises: Misuse."""
    from mfd.learn.errors import LearnError
    from mfd.learn.layers import find_layers, pack

    try:
        layers = [(layer.name, pack(module, layer)) for layer in find_layers(module)]
    except LearnError as exc:
        raise Misuse(str(exc)) from exc
    if plan.body is not None and plan.body[1] > len(layers):
        low, high = plan.body
        raise Misuse(
            f"the plan's body is {low}:{high}, and the model has layers 0:{len(layers)}: "
            "`mfd layers` shows them"
        )
    software = f"mfd {mfd.__version__}"
    nonce = os.urandom(NONCE_BYTES)
    birth = bear(plan, layers, keys, nonce=nonce, software=software)
    event = birth.event
    objects: dict[bytes, LayerObject] = {item.digest: item for item in birth.objects}
    packet = Packet(decode_manifest(event.manifest), event.manifest, event.signature, objects)
    parts = pack_injection(event.genesis, event.plan, encode(packet, Encoding.RAW))
    return birth.walker.hex(), parts
