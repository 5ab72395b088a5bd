"""What stands before the objects of a packet: read, and compared with itself.

    | magic 4 | format u8 | flags u8 | envelope bytes u16 | manifest bytes u32 | signature bytes u16
    | zero u16 | envelope | manifest | signature | zeros to 64 |

Rules of this file: every length is checked before it is used.
Source: spec/packet.md, section "Packet".
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from mfd.packet.chunks import Encoding
from mfd.packet.envelope import Envelope, decode_envelope
from mfd.packet.errors import Fault, PacketError
from mfd.packet.limits import ALIGN_BYTES, DECODED_BYTES_MAX, MANIFEST_BYTES_MAX
from mfd.packet.manifest import Manifest, decode_manifest, verify_manifest
from mfd.packet.signing import SIGNATURE_BYTES, Verifier

__all__ = ["FORMAT", "MAGIC", "PREAMBLE", "Head", "head_bytes", "named", "read_head"]

MAGIC = b"\x93MFD"  # no text begins with this byte in ASCII or UTF-8
FORMAT = 1
PREAMBLE = Struct("<4sBBHIHH")


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before the objects of a packet."""

    manifest: Manifest
    manifest_bytes: bytes
    signature: bytes
    envelope: Envelope
    size: int  # bytes up to the first object


def head_bytes(preamble: memoryview) -> int:
    """Return how many bytes stand before the objects of the packet that begins so.

    Raises: PacketError, whatever the bytes.
    """
    size = PREAMBLE.size + sum(_read_preamble(preamble))
    return size + -size % ALIGN_BYTES


def read_head(
    view: memoryview, verify: Verifier | None, decoded_bytes_max: int = DECODED_BYTES_MAX
) -> Head:
    """Read what stands before the objects; the index agrees with the manifest.

    Raises: PacketError, whatever the bytes.
    """
    envelope_bytes, manifest_bytes, signature_bytes = _read_preamble(view)
    start = PREAMBLE.size
    envelope_end = start + envelope_bytes
    manifest_end = envelope_end + manifest_bytes
    head_end = manifest_end + signature_bytes
    end = head_end + -head_end % ALIGN_BYTES
    if len(view) < end:
        raise PacketError(Fault.TRUNCATED, "headers")
    if view[head_end:end] != bytes(end - head_end):
        raise PacketError(Fault.PADDING, "after the signature")
    body = bytes(view[envelope_end:manifest_end])
    signature = bytes(view[manifest_end:head_end])
    manifest = verify_manifest(body, signature, verify) if verify else decode_manifest(body)
    envelope = decode_envelope(view[start:envelope_end])
    _check_index(manifest, envelope, decoded_bytes_max)
    return Head(manifest, body, signature, envelope, end)


def _read_preamble(view: memoryview) -> tuple[int, int, int]:
    if bytes(view[:4]) != MAGIC[: len(view)]:
        raise PacketError(Fault.MAGIC)
    if len(view) < PREAMBLE.size:
        raise PacketError(Fault.TRUNCATED, "preamble")
    _, version, flags, envelope, manifest, signature, reserved = PREAMBLE.unpack_from(view)
    if version != FORMAT or flags or reserved:
        raise PacketError(Fault.FORMAT, f"format {version}, flags {flags}, reserved {reserved}")
    if manifest > MANIFEST_BYTES_MAX:
        raise PacketError(Fault.LIMIT, f"manifest of {manifest} bytes")
    if signature not in (0, SIGNATURE_BYTES):
        raise PacketError(Fault.FORMAT, f"signature of {signature} bytes")
    return envelope, manifest, signature


def named(manifest: Manifest) -> dict[bytes, int | None]:
    """Digest -> raw bytes, where the manifest tells, of every object that may travel with it."""
    found: dict[bytes, int | None] = {ref.digest: ref.raw_bytes for ref in manifest.layers}
    found.setdefault(manifest.plan, None)
    return found


def _check_index(manifest: Manifest, envelope: Envelope, decoded_bytes_max: int) -> None:
    sizes = named(manifest)
    decoded = 0
    for entry in envelope.index:
        where = f"object {entry.digest.hex()[:16]}"
        if entry.digest not in sizes:
            raise PacketError(Fault.FIELD, f"the manifest does not name {where}")
        if sizes[entry.digest] not in (None, entry.raw_bytes):
            raise PacketError(Fault.FIELD, f"the manifest tells another size of {where}")
        decoded += entry.raw_bytes if entry.encoding != Encoding.RAW else 0
    if decoded > decoded_bytes_max:
        raise PacketError(Fault.LIMIT, f"{decoded} decoded bytes, at most {decoded_bytes_max}")
