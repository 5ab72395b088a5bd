"""`mfd packet`: what lies in a `.mfd` file, and the same in other forms."""

from __future__ import annotations

import re
from dataclasses import asdict
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import mfd
from mfd.cli.errors import CommandError, Misuse, nearest
from mfd.cli.saving import save, write_whole
from mfd.cli.view import data_size, print_json, print_table, printable
from mfd.packet.choosing import Choice, choose_all
from mfd.packet.chunks import Encoding
from mfd.packet.errors import Fault, PacketError
from mfd.packet.packet import PREAMBLE, Chosen, Head, Packet, decode, read_head
from mfd.packet.stream import encode_stream

__all__ = ["ENCODINGS", "check", "convert", "inspect", "map_file", "open_base", "open_packet"]

ENCODINGS = tuple(encoding.name.lower() for encoding in Encoding)
LOSSY = {"int8": 8, "int4": 4}  # forms that hold rounded weights alone, and how coarse they are
SPEED = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)bit/s", re.IGNORECASE)
UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


def map_file(path: Path) -> memoryview:
    """Map a file into memory. Raises: CommandError."""
    try:
        with path.open("rb") as file:
            return memoryview(mmap(file.fileno(), 0, access=ACCESS_READ))
    except OSError as exc:
        raise CommandError(f"{path} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:  # an empty file cannot be mapped
        raise CommandError(f"{path} is not a packet: it is empty") from exc


def open_base(path: Path | None) -> Packet | None:
    """Open and check the packet upon which another builds. Raises: CommandError."""
    if path is None:
        return None
    base = open_packet(path)
    check(path, base)
    return base


def open_packet(path: Path, held: Packet | None = None) -> Packet:
    """Map a packet file; nothing is checked but the form. Raises: CommandError."""
    view = map_file(path)
    try:
        return decode(view, held=held)
    except PacketError as exc:
        if exc.fault is Fault.BASE:
            if held is not None:
                raise CommandError(
                    f"{path} builds upon layers that the base does not hold: {exc.where}"
                ) from exc
            raise CommandError(
                f"{path} builds upon layers of another packet: mfd packet convert {path} OUT.mfd "
                "--base THAT.mfd makes it stand alone"
            ) from exc
        if exc.fault is Fault.TRUNCATED and len(view) > PREAMBLE.size:
            raise CommandError(
                f"{path} is cut short ({exc}): mfd packet verify tells what can be used"
            ) from exc
        raise CommandError(f"{path} is not a packet: {exc}") from exc


def inspect(path: Path, *, as_json: bool) -> None:
    """Print manifest and index; nothing is checked but the form."""
    view = map_file(path)
    try:
        head = read_head(view, None)
    except PacketError as exc:
        raise CommandError(f"{path} is not a packet: {exc}") from exc
    manifest, layers = head.manifest, _layers(head)
    facts: dict[str, Any] = {
        "walker": manifest.walker.hex(),
        "version": manifest.seq,
        "kind": manifest.kind.name.lower(),
        "model": manifest.model.hex(),
        "plan": manifest.plan.hex(),
        "trainer": manifest.trainer.hex(),
        "signed": bool(head.signature),
        "parents": [parent.hex() for parent in manifest.parents],
        "trained": [list(span) for span in manifest.trained],
        "lap": manifest.progress.lap,
        "stops": manifest.progress.stops,
        "scale": {**asdict(manifest.scale), "width": str(manifest.scale.width)},
        "claims": dict(manifest.claims),
        "software": manifest.software,
    }
    odd = _odd_bytes(head, len(view))
    if as_json:
        print_json({**facts, "missing_bytes": -odd, "layers": layers})
        return
    facts["trained"] = [f"{low}:{high}" for low, high in manifest.trained]
    for name, value in facts.items():
        print(f"{name:<9} {_told(value) or '-'}")
    print()
    rows = (
        (
            layer["index"],
            layer["name"],
            layer["digest"][:16],
            data_size(layer["raw_bytes"]),
            layer["encoding"] or "not here",
            data_size(layer["encoded_bytes"]),
            (layer["base"] or "-")[:16],
        )
        for layer in layers
    )
    columns = ("", "layer", "digest", "raw", "encoding", "encoded", "builds upon")
    print_table(columns, rows, "no layers")
    if odd:
        amount = f"{abs(odd)} bytes {'are left over' if odd > 0 else 'are missing'}"
        print(f"\n{amount} at the end of {path}: mfd packet verify tells what can be used")


def _told(value: object) -> str:
    """A fact of a manifest for people."""
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.10g}" if value.is_integer() else f"{value:.4g}"
        case dict():
            return ", ".join(f"{printable(key)} {_told(item)}" for key, item in value.items())
        case list():
            return ", ".join(map(_told, value))
    return printable(value)


def _layers(head: Head) -> list[dict[str, Any]]:
    index = {entry.digest: entry for entry in head.envelope.index}
    layers: list[dict[str, Any]] = []
    for ref in head.manifest.layers:
        entry = index.get(ref.digest)
        layers.append(
            {
                "index": ref.index,
                "name": ref.name,
                "digest": ref.digest.hex(),
                "raw_bytes": ref.raw_bytes,
                "encoding": _encoding_name(entry.encoding) if entry else None,
                "base": entry.base.hex() if entry and entry.base else None,
                "encoded_bytes": entry.encoded_bytes if entry else 0,
            }
        )
    return layers


def _odd_bytes(head: Head, size: int) -> int:
    return size - head.size - sum(entry.encoded_bytes for entry in head.envelope.index)


def _encoding_name(number: int) -> str:
    return Encoding(number).name.lower() if number in set(Encoding) else f"number {number}"


def check(path: Path, packet: Packet) -> None:
    """Compare the content of all objects with their digests. Raises: CommandError."""
    try:
        packet.check()
    except PacketError as exc:
        raise CommandError(f"{path} is not sound: {exc}; see mfd packet verify") from exc


def convert(
    source: Path,
    out: Path,
    *,
    encoding: str | None,
    base: Path | None,
    link: str | None,
    one_layer: bool = False,
    as_json: bool,
) -> None:
    """Write a packet or safetensors file in the form that the ending of `out` names.

    A packet that is encoded anew keeps manifest, signature and envelope. One made of safetensors
    is cut into layers by name, or with `one_layer` has one, "model", and is not signed.
    `base`: a packet that the reader of `out` holds, or `source` builds upon. Raises: CommandError.
    """
    _check_options(out, encoding, link, base)
    if one_layer and (source.suffix, out.suffix) != (".safetensors", ".mfd"):
        raise Misuse("--one-layer is for .safetensors to .mfd: a packet keeps the layers it has")
    held = open_base(base)
    size_before = source.stat().st_size if source.exists() else 0
    chosen: Chosen = Encoding.PLANES
    choices: dict[str, Choice] = {}
    match source.suffix, out.suffix:
        case ((".mfd" | ".safetensors"), ".mfd"):
            packet = _read(source, held, one_layer=one_layer)
            if encoding == "auto":
                found = choose_all(packet, link_bps=bits_per_second(link or ""), base=held)
                names = {ref.digest: ref.name for ref in packet.manifest.layers}
                choices = {names.get(digest, "plan"): choice for digest, choice in found.items()}
                chosen = found
            elif encoding is not None:
                chosen = Encoding[encoding.upper()]
            write_whole(out, encode_stream(packet, chosen, base=held))
        case ".mfd", ".safetensors":
            packet = _read(source, held)
            save(packet, b"", out)
        case _:
            raise Misuse("convert reads and writes .mfd and .safetensors, one of them .mfd")
    facts: dict[str, Any] = {
        "source": str(source),
        "out": str(out),
        "layers": len(packet.manifest.layers),
        "encoding": (encoding or "planes") if out.suffix == ".mfd" else None,
        "used": _used(out) if out.suffix == ".mfd" else None,
        "bytes_before": size_before,
        "bytes_after": out.stat().st_size,
    }
    if as_json:
        chosen_for = {
            name: {"encoding": choice.encoding.name.lower(), "why": choice.why}
            for name, choice in choices.items()
        }
        print_json({**facts, **({"chosen": chosen_for} if choices else {})})
        return
    for name, choice in choices.items():
        print(f"{name}: {choice.why}")
    _tell_converted(facts, encoding or "")


def _tell_converted(facts: dict[str, Any], wanted: str) -> None:
    sizes = [data_size(facts[key]) for key in ("bytes_before", "bytes_after")]
    kinds = f" as {', '.join(facts['used'])}" if facts["used"] else ""
    source, out, layers = (facts[key] for key in ("source", "out", "layers"))
    print(f"{out}: {layers} layers, {sizes[1]}{kinds}; {source} had {sizes[0]}")
    if (bits := LOSSY.get(wanted)) and wanted not in facts["used"]:
        print(
            f"nothing went as {wanted}: it takes only weights that are rounded to {bits} bits, "
            f"as `mfd scale --bits {bits}` does"
        )


def _used(path: Path) -> list[str]:
    """What the objects of a packet went as: a form that does not fit gives way to another."""
    entries = read_head(map_file(path), None).envelope.index
    return sorted({_encoding_name(entry.encoding) for entry in entries})


def _check_options(out: Path, encoding: str | None, link: str | None, base: Path | None) -> None:
    known = ("auto", *ENCODINGS)
    if encoding is not None and encoding not in known:
        raise Misuse(f"encoding {encoding!r} is not known: {nearest(encoding, known)}")
    if encoding is not None and out.suffix != ".mfd":
        raise Misuse("--encoding is for .mfd files: safetensors has none")
    if base is not None and base.exists() and out.exists() and out.samefile(base):
        raise Misuse(f"{out} is the base that it would build upon: write to another file")
    if base is None and encoding in ("delta", "sign", "sparse"):
        raise Misuse(f"--encoding {encoding} builds upon another packet: name it with --base FILE")
    if (encoding == "auto") != (link is not None):
        raise Misuse("--encoding auto and --link go together: say how fast the link is")
    if link is not None:
        bits_per_second(link)


def bits_per_second(text: str) -> float:
    """Read a link's speed such as 100Mbit/s. Raises: Misuse."""
    match = SPEED.fullmatch(text.strip())
    if match is None or not float(match[1]) > 0:
        raise Misuse(f"{text!r} is no speed of a link: write 100Mbit/s, 2.5Gbit/s or 64kbit/s")
    return float(match[1]) * UNITS[match[2].lower()]


def _read(path: Path, held: Packet | None, *, one_layer: bool = False) -> Packet:
    """Open a file as a packet and check it. Raises: CommandError."""
    if path.suffix == ".safetensors":
        return _of_safetensors(path, f"mfd {mfd.__version__}", one_layer=one_layer)
    packet = open_packet(path, held)
    check(path, packet)
    return packet


def _of_safetensors(path: Path, software: str, *, one_layer: bool) -> Packet:
    from mfd.packet.cutting import cut_by_name
    from mfd.packet.safetensors import map_safetensors

    try:
        tensors = map_safetensors(path).tensors
        cut = {"model": list(tensors)} if one_layer else cut_by_name(tensors)
        layers = {layer: {name: tensors[name] for name in names} for layer, names in cut.items()}
        return Packet.from_tensors(layers, software=software)
    except OSError as exc:
        raise CommandError(f"{path} cannot be read: {exc.strerror}") from exc
    except PacketError as exc:
        raise CommandError(f"{path} is not a sound safetensors file: {exc}") from exc
    except ValueError as exc:
        raise CommandError(f"{path} cannot travel: {exc}") from exc
