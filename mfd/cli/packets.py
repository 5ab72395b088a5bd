"""`mfd packet`: what lies in a `.mfd` file."""

from __future__ import annotations

from dataclasses import asdict
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from mfd.cli.errors import CommandError
from mfd.cli.view import data_size, print_json, print_table
from mfd.net.keys import verify
from mfd.packet.chunks import Encoding
from mfd.packet.errors import PacketError
from mfd.packet.packet import Packet, decode

__all__ = ["inspect", "verify_file"]


def _open(path: Path) -> Packet:
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
    packet = _open(path)
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

    packet = _open(path)
    try:
        verify_manifest(packet.manifest_bytes, packet.signature, verify)
        packet.check()
    except PacketError as exc:
        raise CommandError(f"{path} is not sound: {exc}") from exc
    trainer = packet.manifest.trainer.hex()
    print(f"{path}: sound; {len(packet.objects)} objects, version signed by {trainer}")
