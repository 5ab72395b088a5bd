"""`mfd packet diff`: in which layers and tensors two packets differ, and by how much.

Rules of this file: tensors are compared in pieces, so that memory stays small however large a
model is; equal bits are equal, so a NaN does not differ from itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np

from mfd.cli.errors import CommandError
from mfd.cli.packets import open_packet
from mfd.cli.view import data_size, print_json, print_table
from mfd.packet.errors import PacketError
from mfd.packet.packet import Packet
from mfd.packet.tensors import DTYPES, Tensor

__all__ = ["diff"]

Array = np.ndarray[Any, Any]

PIECE_ITEMS = 1 << 18
# type -> (exponent bits, bias); numpy has no numbers of 8 bits
SMALL_FLOATS = {
    "f8_e4m3fn": (4, 7),
    "f8_e5m2": (5, 15),
    "f8_e4m3fnuz": (4, 8),
    "f8_e5m2fnuz": (5, 16),
}
NIBBLES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """One tensor that is not the same in both; `a` and `b` say what it is there, or None."""

    tensor: str
    a: str | None
    b: str | None
    elements: int | None = None  # in all, where both are alike
    changed: int | None = None
    max_abs: float | str | None = None  # of floats; text where it is not finite


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """One layer: same, changed, or in one packet alone."""

    layer: str
    state: str
    raw_bytes: int  # in b; in a where b lacks it
    travel_bytes: int  # from b to a peer that holds all of a
    tensors: list[TensorDifference] | None  # None where a packet does not carry the content


def diff(first: Path, second: Path, *, as_json: bool) -> None:
    """Print what `second` changes. Raises: CommandError."""
    a = open_packet(first)
    b = open_packet(second, held=a)
    for path, packet in ((first, a), (second, b)):
        try:
            packet.check()
        except PacketError as exc:
            raise CommandError(f"{path} is not sound: {exc}") from exc
    try:
        layers = _layers(a, b)
    except PacketError as exc:
        raise CommandError(f"{first} and {second} cannot be compared: {exc}") from exc
    travel = sum(layer.travel_bytes for layer in layers)
    if as_json:
        print_json({"travel_bytes": travel, "layers": [asdict(layer) for layer in layers]})
        return
    rows = [(d.layer, d.state, data_size(d.raw_bytes), data_size(d.travel_bytes)) for d in layers]
    print_table(("layer", "", "raw", "to travel"), rows, "no layers")
    if tensors := [
        (d.layer, t.tensor, t.a or "-", t.b or "-", _share(t), _shown(t.max_abs))
        for d in layers
        for t in d.tensors or ()
    ]:
        print()
        print_table(("layer", "tensor", "a", "b", "changed", "max |a - b|"), tensors, "")
    absent = [d.layer for d in layers if d.state == "changed" and d.tensors is None]
    if absent:
        print(f"\nnot in both packets, so not compared: {', '.join(absent)}")
    print(f"\n{data_size(travel)} would travel to a peer that holds {first}")


def _share(item: TensorDifference) -> str:
    return "-" if item.changed is None else f"{item.changed} of {item.elements}"


def _shown(value: float | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.3g}"


def _layers(a: Packet, b: Packet) -> list[LayerDifference]:
    held = {ref.digest for ref in a.manifest.layers}
    encoded = {entry.digest: entry.encoded_bytes for entry in b.envelope.index}
    olds = {ref.name: ref for ref in a.manifest.layers}
    found = []
    for ref in b.manifest.layers:
        old = olds.pop(ref.name, None)
        travel = 0 if ref.digest in held else encoded.get(ref.digest, ref.raw_bytes)
        held.add(ref.digest)  # an object travels once, however many layers it is
        state = "only in b" if old is None else "same" if old.digest == ref.digest else "changed"
        tensors: list[TensorDifference] | None = []
        if old is not None and state == "changed":
            both = old.digest in a.objects and ref.digest in b.objects
            tensors = _tensors(a.layer(old.index), b.layer(ref.index)) if both else None
        found.append(LayerDifference(ref.name, state, ref.raw_bytes, travel, tensors))
    found += [
        LayerDifference(name, "only in a", ref.raw_bytes, 0, []) for name, ref in olds.items()
    ]
    return found


def _tensors(old: dict[str, Tensor], new: dict[str, Tensor]) -> list[TensorDifference]:
    found = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        item = TensorDifference(name, _form(a), _form(b))
        if a is None or b is None or item.a != item.b:
            found.append(item)
            continue
        changed, largest = _compare(a, b)
        if changed:
            told = largest if largest is None or isfinite(largest) else str(largest)
            found.append(replace(item, elements=prod(a.shape), changed=changed, max_abs=told))
    return found


def _form(tensor: Tensor | None) -> str | None:
    return None if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"


def _compare(a: Tensor, b: Tensor) -> tuple[int, float | None]:
    """Count the elements that differ, and return the largest difference where they are floats."""
    size = DTYPES[a.dtype][0]
    word = min(size, 8)
    changed, largest = 0, None
    for start in range(0, len(a.data), size * PIECE_ITEMS):
        end = start + size * PIECE_ITEMS
        x, y = (
            np.frombuffer(t.data[start:end], f"<u{word}").reshape(-1, size // word) for t in (a, b)
        )
        differ = (x != y).any(axis=1)
        changed += int(differ.sum())
        u, v = (_numbers(item[differ].view(np.uint8), a.dtype) for item in (x, y))
        if u is None or v is None or not len(u):
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            most = float(np.abs(u - v).max())
        largest = most if largest is None else float(np.maximum(largest, most))  # keeps a NaN
    return changed, largest


@np.errstate(invalid="ignore")  # NaNs that signal
def _numbers(raw: Array, dtype: str) -> Array | None:
    """What the bytes of elements stand for, in double precision; None where it is no float."""
    flat = raw.reshape(-1)
    if dtype == "bf16":
        return (flat.view("<u2").astype("<u4") << 16).view("<f4").astype("<f8")
    if dtype == "c32":
        pairs = flat.view("<f2").astype("<f8")
        return pairs[0::2] + 1j * pairs[1::2]
    if dtype in SMALL_FLOATS:
        return _table(dtype)[flat]
    if dtype == "f8_e8m0fnu":
        return np.where(flat == 255, np.nan, np.exp2(flat.astype("<f8") - 127))
    if dtype == "f4_e2m1fn_x2":
        return np.concatenate([NIBBLES[flat & 15], NIBBLES[flat >> 4]])
    if dtype[0] in "fc":
        wide = "<f8" if dtype[0] == "f" else "<c16"
        return flat.view(DTYPES[dtype][1]).astype(wide)
    return None


def _table(dtype: str) -> Array:
    """What each of the 256 bytes stands for in an 8-bit float type."""
    exponent_bits, bias = SMALL_FLOATS[dtype]
    fraction_bits = 7 - exponent_bits
    codes = np.arange(256)
    exponent = codes >> fraction_bits & (1 << exponent_bits) - 1
    fraction = codes & (1 << fraction_bits) - 1
    whole = np.where(exponent > 0, fraction + (1 << fraction_bits), fraction)
    values = np.ldexp(whole.astype("<f8"), np.maximum(exponent, 1) - bias - fraction_bits)
    if dtype == "f8_e4m3fn":
        values[codes & 0x7F == 0x7F] = np.nan
    elif dtype == "f8_e5m2":
        values[exponent == 31] = np.where(fraction[exponent == 31] == 0, np.inf, np.nan)
    else:
        values[codes == 0x80] = np.nan
    signed: Array = np.where(codes >> 7, -values, values)
    return signed
