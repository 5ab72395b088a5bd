"""`mfd packet`: what lies in a `.mfd` file, and the same in other forms."""

from __future__ import annotations

from dataclasses import asdict
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import mfd
from mfd.cli.errors import CommandError, Misuse, nearest
from mfd.cli.sending import save, write_whole
from mfd.cli.view import data_size, print_json, print_table
from mfd.net.keys import verify
from mfd.packet.chunks import Encoding
from mfd.packet.errors import PacketError
from mfd.packet.packet import Packet, decode, encode

__all__ = ["ENCODINGS", "check", "convert", "inspect", "open_packet", "verify_file"]

ENCODINGS = {"raw": Encoding.RAW, "planes": Encoding.PLANES}


def open_packet(path: Path) -> Packet:
    """Map a packet file; nothing is checked but the form. Raises: CommandError."""
    try:
        with path.open("rb") as file:
            return decode(mmap(file.fileno(), 0, access=ACCESS_READ))
    except OSError as exc:
        raise CommandError(f"{path} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:  # an empty file cannot be mapped
        reason = exc if isinstance(exc, PacketError) else "it is empty"
        raise CommandError(f"{path} is not a packet: {reason}") from exc


def inspect(path: Path, *, as_json: bool) -> None:
    """Print manifest and index; nothing is checked but the form."""
    packet = open_packet(path)
    manifest, index = packet.manifest, {entry.digest: entry for entry in packet.envelope.index}
    layers: list[dict[str, Any]] = []
    for ref in manifest.layers:
        entry = index.get(ref.digest)
        layers.append(
            {
                "index": ref.index,
                "name": ref.name,
                "digest": ref.digest.hex(),
                "raw_bytes": ref.raw_bytes,
                "encoding": Encoding(entry.encoding).name.lower() if entry else None,
                "encoded_bytes": entry.encoded_bytes if entry else 0,
            }
        )
    facts: dict[str, Any] = {
        "walker": manifest.walker.hex(),
        "version": manifest.seq,
        "kind": manifest.kind.name.lower(),
        "model": manifest.model.hex(),
        "plan": manifest.plan.hex(),
        "trainer": manifest.trainer.hex(),
        "signed": bool(packet.signature),
        "parents": [parent.hex() for parent in manifest.parents],
        "trained": [list(span) for span in manifest.trained],
        "lap": manifest.progress.lap,
        "stops": manifest.progress.stops,
        "scale": asdict(manifest.scale),
        "claims": dict(manifest.claims),
        "software": manifest.software,
    }
    if as_json:
        print_json({**facts, "layers": layers})
        return
    for name, value in facts.items():
        print(f"{name:<9} {value}")
    print()
    rows = (
        (
            layer["index"],
            layer["name"],
            layer["digest"][:16],
            data_size(layer["raw_bytes"]),
            layer["encoding"] or "not here",
            data_size(layer["encoded_bytes"]),
        )
        for layer in layers
    )
    print_table(("", "layer", "digest", "raw", "encoding", "encoded"), rows, "no layers")


def verify_file(path: Path) -> None:
    """Check signature and content. Raises: CommandError."""
    from mfd.packet.manifest import verify_manifest

    packet = open_packet(path)
    if not packet.signature:
        raise CommandError(f"{path} is not signed, so nobody can say who made it")
    try:
        verify_manifest(packet.manifest_bytes, packet.signature, verify)
    except PacketError as exc:
        raise CommandError(f"{path} is not sound: {exc}") from exc
    check(path, packet)
    trainer = packet.manifest.trainer.hex()
    print(f"{path}: sound; {len(packet.objects)} objects, version signed by {trainer}")


def check(path: Path, packet: Packet) -> None:
    """Compare the content of all objects with their digests. Raises: CommandError."""
    try:
        packet.check()
    except PacketError as exc:
        raise CommandError(f"{path} is not sound: {exc}") from exc


def convert(source: Path, out: Path, *, encoding: str | None, as_json: bool) -> None:
    """Write a packet or safetensors file in the form that the ending of `out` names.

    A packet that is encoded anew keeps manifest, signature and envelope. One made of safetensors
    has one layer, "model", and is not signed. Raises: CommandError.
    """
    if encoding is not None and encoding not in ENCODINGS:
        raise Misuse(f"encoding {encoding!r} is not known: {nearest(encoding, ENCODINGS)}")
    if encoding is not None and out.suffix != ".mfd":
        raise Misuse("--encoding is for .mfd files: safetensors has none")
    chosen = encoding or "planes"
    match source.suffix, out.suffix:
        case ".mfd", ".mfd":
            packet = open_packet(source)
            check(source, packet)
            write_whole(out, encode(packet, ENCODINGS[chosen]))
        case ".mfd", ".safetensors":
            packet = open_packet(source)
            check(source, packet)
            save(packet, b"", out)
        case ".safetensors", ".mfd":
            software = f"mfd {mfd.__version__}"
            packet = _of_safetensors(source, software)
            write_whole(out, encode(packet, ENCODINGS[chosen]))
        case _:
            raise Misuse("convert reads and writes .mfd and .safetensors, one of them .mfd")
    facts: dict[str, Any] = {
        "source": str(source),
        "out": str(out),
        "layers": len(packet.manifest.layers),
        "encoding": chosen if out.suffix == ".mfd" else None,
        "bytes_before": source.stat().st_size,
        "bytes_after": out.stat().st_size,
    }
    if as_json:
        print_json(facts)
        return
    sizes = [data_size(facts[key]) for key in ("bytes_before", "bytes_after")]
    print(f"{out}: {facts['layers']} layers, {sizes[1]}; {source} has {sizes[0]}")


def _of_safetensors(path: Path, software: str) -> Packet:
    from mfd.packet.safetensors import map_safetensors

    try:
        return Packet.from_tensors({"model": map_safetensors(path).tensors}, software=software)
    except OSError as exc:
        raise CommandError(f"{path} cannot be read: {exc.strerror}") from exc
    except PacketError as exc:
        raise CommandError(f"{path} is not a sound safetensors file: {exc}") from exc
    except ValueError as exc:
        raise CommandError(f"{path} cannot travel: {exc}") from exc
