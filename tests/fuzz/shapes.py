"""Changes that know a form: behind a damage the digests, lengths and signatures are right again.

Rules of this file: as a rule only one thing is wrong, so that what comes after the first checks is
reached; nothing of a sample is changed in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from mfd.packet import PLAN_DOMAIN, Piece, seal
from mfd.packet.limits import CHUNK_BYTES
from mfd.packet.tensors import DTYPES
from tests.fuzz.corpus import Sample
from tests.fuzz.forms import (
    CHUNK_HEAD,
    Built,
    write_chunk,
    write_frame,
    write_layer,
    write_piece,
    write_planes,
    write_safetensors_file,
)
from tests.fuzz.held import BASE_DIGEST
from tests.fuzz.mutate import change, damage, lie, nested, number, pack, tweak
from tests.packet.keys import HashSigner

SIGNER = HashSigner("walker")
BULK = 1 / 4000  # share of inputs that are as large as a limit allows
TYPES = tuple(DTYPES)
NANS = (
    b"\xff\xff",
    b"\x00\x00\xc0\x7f",
    b"\x00\x00\x80\x7f",
    b"\x00\x00\x80\xff",
    b"\x01\x00\x80\x7f",
)


def header(rng: Random, sample: Sample) -> bytes:
    """A manifest, plan or envelope with one or two values changed."""
    if rng.random() < BULK:
        return bulk_header(rng, sample.tree)
    tree = change(rng, sample.tree)
    if rng.random() < 0.3:
        tree = change(rng, tree)
    return pack(rng, tree)


def bulk_header(rng: Random, tree: Any) -> bytes:
    """A field that fills the header with as many values as its bytes can tell."""
    filler = rng.choice((b"\xdc\x04\x00" + b"\x90" * 1024, b"\x91" * 1023 + b"\xc0"))
    many = b"\xdc\x00\x28" + filler * 40
    key = rng.choice(list(tree)) if isinstance(tree, dict) and tree else 7
    return pack(rng, {**(tree or {}), key: nested(0)}).replace(b"\x90", many[: 60 << 10], 1)


def record(rng: Random, sample: Sample) -> bytes:
    """A signed record: its body changed, and signed again as a rule."""
    body = header(rng, sample) if rng.random() < 0.7 else damage(rng, sample.body[96:], b"")
    made = seal(PLAN_DOMAIN, body, SIGNER)
    return damage(rng, made, sample.body) if rng.random() < 0.1 else made


def layer(rng: Random, sample: Sample) -> bytes:
    """A layer object with its table or its tensors changed."""
    if rng.random() < BULK:
        return bulk_layer(rng)
    size = int.from_bytes(sample.body[:4], "little")
    start = 8 + size + -(8 + size) % 64
    regions = sample.body[start:]
    match rng.randrange(8):
        case 0:
            return lie(rng, write_layer(sample.tree, regions))
        case 1:
            return write_layer(sample.tree, tweak(rng, regions)).body
        case 2:
            return write_layer(sample.tree, poisoned(rng, regions)).body
        case 3:
            return write_layer(shaped(rng, sample.tree), regions).body
        case 4:
            return sound_layer(rng)
        case _:
            table = pack(rng, change(rng, sample.tree))
            return write_layer(None, regions, table=table).body


def shaped(rng: Random, rows: list[Any]) -> list[Any]:
    """Rows whose extents multiply to something that no 64 bits hold, or to as much as before."""
    sound = [at for at, row in enumerate(rows) if isinstance(row, list) and len(row) == 3]
    if not sound:
        return [["w", rng.choice(TYPES), [number(rng) for _ in range(rng.randrange(18))]]]
    at = rng.choice(sound)
    name, dtype, shape = rows[at]
    shape = shape if isinstance(shape, list) else []
    match rng.randrange(4):
        case 0:
            shape = [1 << rng.randrange(41) for _ in range(rng.choice((2, 3, 16, 17)))]
        case 1:
            shape = [0, *([1 << 40] * rng.choice((1, 2, 15, 16)))]
        case 2:
            shape = [*shape, *([1] * rng.choice((1, 16)))]
        case _:
            dtype = rng.choice(TYPES)
    return [*rows[:at], [name, dtype, shape], *rows[at + 1 :]]


def poisoned(rng: Random, body: bytes) -> bytes:
    """Numbers that are none (NaN, infinities) written into what is there, aligned."""
    made = bytearray(body)
    for _ in range(rng.choice((1, 1, 4, 30))):
        value = rng.choice(NANS)
        if len(made) >= len(value):
            at = rng.randrange(len(made) - len(value) + 1) & ~(len(value) - 1)
            made[at : at + len(value)] = value
    return bytes(made)


def sound_layer(rng: Random) -> bytes:
    """A layer of any shapes and types that breaks no rule."""
    names = sorted({f"t{rng.randrange(99)}".encode() for _ in range(rng.randrange(6))})
    rows, regions = [], b""
    for name in names:
        dtype = rng.choice(TYPES)
        shape = [rng.randrange(5) for _ in range(rng.choice((0, 1, 2, 2, 3, 16)))]
        size = DTYPES[dtype][0]
        for extent in shape:
            size *= extent
        if size > 1 << 12:
            shape, size = [], DTYPES[dtype][0]
        rows.append([name.decode(), dtype, shape])
        regions += rng.randbytes(size) + bytes(-size % 64)
    return write_layer(rows, regions).body


def bulk_layer(rng: Random) -> bytes:
    """A table as large as the limit allows, of as many values as its bytes can tell."""
    row = rng.choice((b"\xdc\x04\x00" + b"\x90" * 1024, b"\xdc\x04\x00" + b"\x05" * 1024, b"\x90"))
    count = min(65_536, (rng.choice((1, 16)) << 20) // len(row) - 1)
    table = b"\xdd" + count.to_bytes(4, "big") + row * count
    return write_layer(None, b"", table=table).body


def chunk(rng: Random, sample: Sample) -> bytes:
    """A chunk: planes, heads and frames changed, or made from nothing."""
    encoding, base, _, raw_bytes = CHUNK_HEAD.unpack_from(sample.body)
    body = sample.body[CHUNK_HEAD.size :]
    built = write_chunk(encoding, raw_bytes, body, base=bool(base))
    match rng.randrange(10):
        case 0:
            return lie(rng, built)
        case 1:
            encoding = rng.randrange(256)
            return write_chunk(encoding, raw_bytes, body, base=rng.random() < 0.5).body
        case 2:
            return write_chunk(encoding, number(rng, raw_bytes), body, base=bool(base)).body
        case 3:
            changed = damage(rng, body, body)
            return write_chunk(encoding, raw_bytes, changed, base=rng.random() < 0.5).body
        case 4 | 5 | 6:
            return planes(rng)
        case _:
            spoil = poisoned if rng.random() < 0.2 else tweak
            return write_chunk(encoding, raw_bytes, spoil(rng, body), base=bool(base)).body


def planes(rng: Random) -> bytes:
    """Planes of frames that are right, wrong in what they declare, or bombs."""
    width = rng.choice((1, 2, 4, 8, rng.randrange(256)))
    count = rng.choice((5, 64, 128, 200, 1000, CHUNK_BYTES // max(width, 1)))
    if count > 5000 and rng.random() < 0.9:
        count = 64
    tail = rng.randbytes(rng.choice((0, 0, 0, 1, 3)))
    bodies = []
    for _ in range(min(width, 8)):
        if rng.random() < 0.2:
            bodies.append((rng.random() < 0.05, bytes(min(count, 4096))))
        else:
            bodies.append((rng.random() < 0.98, frame(rng, count)))
    code = rng.choice((0, 0, 1, 2, rng.randrange(256)))
    body = write_planes(width, bodies, tail, code=code)
    encoding = 1 if code == 0 else 2
    if rng.random() < 0.1:
        encoding = rng.randrange(8)
    size = count * width + len(tail)
    return write_chunk(encoding, size, body, base=code != 0 or rng.random() < 0.1).body


def frame(rng: Random, count: int) -> bytes:
    """A zstd frame of `count` bytes, mostly; else one that declares or gives others."""
    value = rng.choice((0, 0x7F, 0xFF, rng.randrange(256)))
    roll = rng.random()
    if roll < 0.9:
        return write_frame(value, count, declared=count)
    if roll < 0.92:  # a bomb behind a small number
        return write_frame(value, rng.choice((1 << 20, 1 << 24, 1 << 28)), declared=count)
    if roll < 0.94:  # a large number before little
        return write_frame(value, count, declared=number(rng, count))
    if roll < 0.96:
        return write_frame(value, count, declared=None, window=rng.randrange(256))
    if roll < 0.98:
        made = write_frame(value, count, declared=count, window=rng.choice((0, 0x88, 0xFF)))
        return made[: -rng.randrange(1, 5)] if rng.random() < 0.5 else made
    made = write_frame(value, count, declared=count)
    return rng.choice((made + made, made + b"\x50\x2a\x4d\x18\x00\x00\x00\x00", made[:-2]))


def safetensors(rng: Random, sample: Sample) -> bytes:
    """A safetensors file with its header, a length or its tensors changed."""
    if rng.random() < BULK:
        return bulk_safetensors(rng)
    size = int.from_bytes(sample.body[:8], "little")
    body = sample.body[8 + size :]
    if sample.tree is None or rng.random() < 0.25:
        text = sample.body[8 : 8 + size]
        return lie(rng, Built(sample.body, [(0, 8)])) if rng.random() < 0.4 else (
            write_safetensors_file(None, body, text=damage(rng, text, text) or b"{}").body
        )  # fmt: skip
    tree = change(rng, sample.tree, text_only=True)
    if rng.random() < 0.05:
        tree = {**sample.tree, rng.choice(("\ud800", "x")): tree}
    return write_safetensors_file(tree, body).body


def bulk_safetensors(rng: Random) -> bytes:
    """A header as large as the limit allows."""
    filler = rng.choice((b"[],", b"{},", b"0,", b'"",', b"[" * 3, b'{"a":' * 2))
    text = b'{"x":[' + filler * ((1 << 20) // len(filler) - 8)
    ends = b"0]}" if filler.endswith(b",") else b""
    return write_safetensors_file(None, b"", text=text + ends).body


def piece(rng: Random, sample: Sample) -> bytes:
    """A piece with a number of its head, a name or its body changed."""
    was: Piece = sample.tree
    body = bytes(was.body)
    match rng.randrange(5):
        case 0 | 1:
            return lie(rng, write_piece(was, body))
        case 2:
            changed = replace(was, base=rng.choice((None, bytes(32), BASE_DIGEST, was.object)))
            return write_piece(changed, body).body
        case 3:
            return write_piece(replace(was, encoding=rng.randrange(8)), body).body
        case _:
            spoilt = (tweak if rng.random() < 0.7 else damage_alone)(rng, body)
            return write_piece(was, spoilt or b"x").body


def damage_alone(rng: Random, body: bytes) -> bytes:
    """Change bytes, and how many they are, with nothing to splice them with."""
    return damage(rng, body, body)


SHAPES: dict[str, Callable[[Random, Sample], bytes]] = {
    "manifest": header, "plan": header, "envelope": header, "record": record, "layer": layer,
    "chunk": chunk, "safetensors": safetensors, "piece": piece,
}  # fmt: skip
