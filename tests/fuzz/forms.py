"""The forms of the format taken apart, and writers that put any values into them, right or wrong.

What a writer here returns is `Built`: bytes, and the places of the numbers in them that tell a
length, so that one of them can be made to lie.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from struct import Struct
from typing import Any

import msgpack
from blake3 import blake3

from mfd.packet import (
    MANIFEST_DOMAIN,
    Encoding,
    PacketError,
    Piece,
    decode_chunk,
    encode_chunk,
    encode_piece,
    item_bytes_of,
)
from mfd.packet.limits import ALIGN_BYTES, CHUNK_BYTES
from mfd.packet.objects import chunk_root
from mfd.packet.packet import FORMAT, MAGIC, PREAMBLE
from mfd.packet.signing import Signer
from tests.fuzz.held import BASE

CHUNK_HEAD = Struct("<BBHI")  # encoding, has a base, zero, raw bytes
ROW_BYTES = 40
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
RLE_BYTES_MAX = 1 << 17  # of one block of a zstd frame


@dataclass(slots=True)
class Built:
    """Bytes, and where in them the lengths stand and the padding."""

    body: bytes
    lengths: list[tuple[int, int]] = field(default_factory=list)  # offset, size
    pads: list[tuple[int, int]] = field(default_factory=list)  # first, last + 1


@dataclass(slots=True)
class LooseChunk:
    """One chunk of an object in a packet."""

    encoding: int
    body: bytes
    digest: bytes


@dataclass(slots=True)
class LooseObject:
    """One object in a packet; its digest follows from its chunks."""

    raw_bytes: int
    encoding: int
    base: bytes | None
    chunks: list[LooseChunk]
    named: bytes  # the digest under which the manifest knew it
    raw: bytes = b""  # the content, where it is known

    @property
    def digest(self) -> bytes:
        """The digest that these chunks give."""
        return chunk_root(self.raw_bytes, [chunk.digest for chunk in self.chunks])


@dataclass(slots=True)
class LoosePacket:
    """A packet with everything open to change."""

    envelope: dict[int, Any]
    manifest: dict[int, Any]
    objects: list[LooseObject]


def padded(body: bytes) -> bytes:
    """Zeros up to the next multiple of 64."""
    return body + bytes(-len(body) % ALIGN_BYTES)


def as_object(raw: bytes, encoding: int, named: bytes) -> LooseObject:
    """Cut content into chunks, each with its right digest."""
    chunks = []
    pieces = [raw[at : at + CHUNK_BYTES] for at in range(0, len(raw), CHUNK_BYTES)]
    widths = item_bytes_of(raw) if encoding else [1] * len(pieces)
    used = 0
    for piece, width in zip(pieces, widths, strict=True):
        how, body = encode_chunk(piece, item_bytes=width, encoding=Encoding(encoding))
        used = max(used, how)
        chunks.append(LooseChunk(int(how), bytes(body), blake3(piece).digest()))
    return LooseObject(len(raw), used, None, chunks, named, raw)


def resealed(chunk: LooseChunk, raw_bytes: int, *, based: bool) -> LooseChunk:
    """The chunk with the digest of what its body decodes to now, where it decodes."""
    base = BASE if based else None
    try:
        raw = decode_chunk(chunk.encoding, chunk.body, raw_bytes=raw_bytes, base=base)
    except PacketError:
        return chunk
    return LooseChunk(chunk.encoding, chunk.body, blake3(raw).digest())


def write_object(item: LooseObject, built: list[bytes], at: int, made: Built) -> int:
    """Append table and bodies; return where they end."""
    rows = bytearray()
    for chunk in item.chunks:
        made.lengths.append((at + len(rows) + 36, 4))
        size = len(chunk.body).to_bytes(4, "little")
        rows += chunk.digest + bytes([chunk.encoding & 255, 0, 0, 0]) + size
    for part in (bytes(rows), *(chunk.body for chunk in item.chunks)):
        full = padded(part)
        made.pads.append((at + len(part), at + len(full)))
        built.append(full)
        at += len(full)
    return at


def index_of(item: LooseObject) -> list[Any]:
    """The entry of the index that tells the truth."""
    size = len(padded(bytes(ROW_BYTES * len(item.chunks))))
    size += sum(len(padded(chunk.body)) for chunk in item.chunks)
    count = -(-item.raw_bytes // CHUNK_BYTES)
    return [item.digest, item.encoding, item.base, size, count, item.raw_bytes]


def write_packet(
    packet: LoosePacket,
    *,
    signer: Signer | None = None,
    index: list[list[Any]] | None = None,
    envelope: bytes | None = None,
    manifest: bytes | None = None,
) -> Built:
    """Write a packet whose digests, sizes and signature are right, but for what is handed in."""
    head = write_envelope(packet, index) if envelope is None else envelope
    body = msgpack.packb(packet.manifest) if manifest is None else manifest
    signature = signer.sign(MANIFEST_DOMAIN, body) if signer else b""
    made = Built(b"", [(6, 2), (8, 4), (12, 2)])
    sizes = (len(head) & 0xFFFF, len(body) & 0xFFFFFFFF, len(signature))
    front = PREAMBLE.pack(MAGIC, FORMAT, 0, *sizes, 0) + head + body + signature
    full = padded(front)
    made.pads.append((len(front), len(full)))
    parts = [full]
    at = len(full)
    for item in packet.objects:
        at = write_object(item, parts, at, made)
    made.body = b"".join(parts)
    return made


def write_envelope(packet: LoosePacket, index: list[list[Any]] | None = None) -> bytes:
    """Write the envelope with the index of these objects, or with another one."""
    entries = [index_of(item) for item in packet.objects] if index is None else index
    packed: bytes = msgpack.packb({**packet.envelope, 10: entries})
    return packed


def rename(packet: LoosePacket) -> None:
    """Make the manifest name the objects by their digests and sizes as they are now."""
    now = {item.named: item for item in packet.objects if item.named != item.digest}
    if not now:
        return
    layers = []
    for index, name, digest, raw_bytes in packet.manifest[8]:
        item = now.get(digest)
        layers.append(
            [index, name, *((item.digest, item.raw_bytes) if item else (digest, raw_bytes))]
        )
    plan = now.get(packet.manifest[12])
    packet.manifest = {**packet.manifest, 8: layers}
    if plan is not None:
        packet.manifest[12] = plan.digest


def write_layer(rows: Any, regions: bytes | None = None, *, table: bytes | None = None) -> Built:
    """Write a layer object; without regions it gets zeros where its rows tell how many."""
    body = msgpack.packb(rows) if table is None else table
    front = len(body).to_bytes(4, "little") + bytes(4) + body
    full = padded(front)
    return Built(full + (regions or b""), [(0, 4)], [(4, 8), (len(front), len(full))])


def write_chunk(encoding: int, raw_bytes: int, body: bytes, *, base: bool = False) -> Built:
    """Write one chunk with what is told outside its body; `encoding` 0 to 255."""
    places = [(4, 4), *((CHUNK_HEAD.size + at, size) for at, size in _lengths(encoding, body))]
    head = CHUNK_HEAD.pack(encoding & 255, int(base), 0, raw_bytes & 0xFFFFFFFF)
    return Built(head + body, places)


def _lengths(encoding: int, body: bytes) -> list[tuple[int, int]]:
    """Where in a body stands how long something is."""
    if len(body) < 4:
        return []
    match encoding:
        case Encoding.PLANES | Encoding.DELTA:
            return [(4 + 4 * k, 4) for k in range(min(body[0], 8))]
        case Encoding.INT8 | Encoding.INT4 | Encoding.SIGN:
            runs = min(int.from_bytes(body[2:4], "little"), 8)
            words = [(4 + 4 * k, 4) for k in range(2 * runs + 3)]
            return [(2, 2), *words]
        case Encoding.SPARSE:
            return [(4 + 4 * k, 4) for k in range(3 + min(body[0], 8))]
        case _:
            return []


def write_planes(
    width: int, bodies: list[tuple[bool, bytes]], tail: bytes = b"", *, code: int = 0
) -> bytes:
    """Write a body of planes; True marks a zstd frame."""
    heads = b"".join((len(b) | coded << 31).to_bytes(4, "little") for coded, b in bodies)
    return bytes([width & 255, code & 255, 0, 0]) + heads + b"".join(b for _, b in bodies) + tail


def write_frame(
    value: int, count: int, *, declared: int | None, window: int | None = None
) -> bytes:
    """Write a zstd frame of `count` equal bytes in blocks of up to 128 KiB.

    It declares `declared` bytes, or none; with `window`, that byte is its window descriptor.
    """
    single = window is None
    flag = (3 << 6 if declared is not None else 0) | (0x20 if single else 0)
    head = ZSTD_MAGIC + bytes([flag])
    if not single:
        head += bytes([window & 255])  # type: ignore[operator]
    if declared is not None:
        head += (declared & (1 << 64) - 1).to_bytes(8, "little")
    elif single:
        head += bytes([count & 255])
    blocks = bytearray()
    left = count
    while True:
        size = min(left, RLE_BYTES_MAX)
        left -= size
        blocks += (size << 3 | 0b010 | (left == 0)).to_bytes(3, "little") + bytes([value])
        if not left:
            return head + bytes(blocks)


def write_safetensors_file(header: Any, body: bytes, *, text: bytes | None = None) -> Built:
    """Write a safetensors file with any header."""
    if text is None:
        text = json.dumps(header, separators=(",", ":")).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return Built(len(text).to_bytes(8, "little") + text + body, [(0, 8)])


def write_piece(piece: Piece, body: bytes) -> Built:
    """Write a piece with another body, whose length is right."""
    head, _ = encode_piece(replace(piece, body=body))
    fields = [(4, 1), (5, 1), (6, 1), (8, 4), (12, 4), (16, 8)]
    return Built(bytes(head) + body, fields, [(7, 8), (24, 32)])


def write_bundle(files: list[tuple[str, bytes]]) -> bytes:
    """Several files as one string of bytes."""
    return b"".join(
        bytes([len(name)]) + name.encode() + len(body).to_bytes(4, "little") + body
        for name, body in files
    )


def read_bundle(data: bytes) -> list[tuple[str, bytes]]:
    """Take a bundle apart, whatever the bytes: what is missing is left out."""
    files, at = [], 0
    while at < len(data):
        end = at + 1 + data[at]
        name = data[at + 1 : end].decode("ascii", "replace")
        size = int.from_bytes(data[end : end + 4], "little")
        files.append((name, data[end + 4 : end + 4 + size]))
        at = end + 4 + size
    return files
