"""`mfd packet verify`: whether a file is sound, and if not, what of it can still be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mfd.cli.errors import CommandError
from mfd.cli.packets import map_file, open_base
from mfd.cli.view import print_json, print_table
from mfd.net.keys import verify
from mfd.packet.damage import Found, Survey, survey
from mfd.packet.errors import Fault, PacketError

__all__ = ["verify_file"]

SHOWN = 20  # bad chunks in the table; --json has all


def verify_file(path: Path, *, base: Path | None, signed_only: bool, as_json: bool) -> None:
    """Check signature and content, every chunk by itself. Raises: CommandError.

    A packet that nobody signed is for local use: it is refused where `signed_only` is asked for.
    """
    held = open_base(base)
    try:
        found = survey(map_file(path), held=held)
    except PacketError as exc:
        raise CommandError(f"{path} is not a packet: {exc}") from exc
    forged = _forged(path, found)
    if as_json:
        print_json(_facts(path, found, sound=found.sound and not forged))
    elif not found.sound:
        print_table(("layer", "chunk", "at byte", "what is wrong"), _rows(found), "")
    if not found.sound:
        raise CommandError(f"{path} is not sound: {_summary(found, based=held is not None)}")
    if forged:
        raise CommandError(forged)
    if signed_only and not found.head.signature:
        raise CommandError(f"{path} is not signed, so nobody can say who made it")
    if not as_json:
        trainer = found.head.manifest.trainer.hex()
        who = f"signed by {trainer}" if found.head.signature else "not signed: who made it is open"
        print(f"{path}: sound; all chunks of {len(found.objects)} objects are good; {who}")


def _forged(path: Path, found: Survey) -> str:
    """Return why a signature that is there is not good, or nothing."""
    head = found.head
    if not head.signature:
        return ""
    args = (head.manifest.trainer, "mfd.manifest.v1", head.manifest_bytes, head.signature)
    return "" if verify(*args) else f"{path} is not sound: {Fault.SIGNATURE.value}"


def _name(item: Found) -> str:
    return ", ".join(item.layers) or "plan"


def _rows(found: Survey) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for item in found.objects:
        if item.fault is not None:
            rows.append((_name(item), "all", item.offset, item.fault.fault.value))
        rows += [(_name(item), bad.index, bad.offset, bad.fault.value) for bad in item.bad]
    more = len(rows) - SHOWN
    if more > 0:
        rows[SHOWN:] = [("...", f"{more} more", "", "--json lists them all")]
    return rows


def _summary(found: Survey, *, based: bool) -> str:
    total = sum(item.entry.chunk_count for item in found.objects)
    good = sum(item.good for item in found.objects)
    parts = []
    if found.beyond:
        amount = abs(found.beyond)
        parts.append(f"{amount} bytes are {'left over' if found.beyond > 0 else 'missing'}")
    first = next((item for item in found.objects if item.fault or item.bad), None)
    if first is not None and first.fault is not None:
        parts.append(f"layer {_name(first)!r} cannot be read: {first.fault.fault.value}")
        if first.fault.fault is Fault.BASE and first.entry.base is not None:
            lacks = "the base given does not hold" if based else "name with --base the packet of"
            parts.append(f"{lacks} object {first.entry.base.hex()[:16]}")
    elif first is not None:
        bad = first.bad[0]
        parts.append(f"the first bad chunk is number {bad.index} of layer {_name(first)!r}")
    return "; ".join(parts) + f"; {good} of {total} chunks are good and can be used"


def _facts(path: Path, found: Survey, *, sound: bool) -> dict[str, Any]:
    return {
        "file": str(path),
        "sound": sound,
        "signed": bool(found.head.signature),
        "trainer": found.head.manifest.trainer.hex(),
        "missing_bytes": -found.beyond,
        "objects": [
            {
                "digest": item.entry.digest.hex(),
                "layers": list(item.layers),
                "chunks": item.entry.chunk_count,
                "good": item.good,
                "fault": item.fault.fault.name if item.fault else None,
                "bad": [
                    {"chunk": bad.index, "fault": bad.fault.name, "offset": bad.offset}
                    for bad in item.bad
                ],
            }
            for item in found.objects
        ],
    }
