"""Inputs drawn by kind: packets, pieces and files changed as a whole, all else by its form.

Rules of this file: as in shapes.py, as a rule only one thing is wrong; digests, names and
signatures around it are right again.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from random import Random
from typing import Any

from mfd.packet import Encoding
from mfd.packet.limits import CHUNK_BYTES
from tests.fuzz.corpus import Corpus, Sample, take_apart
from tests.fuzz.forms import (
    CHUNK_HEAD,
    LooseChunk,
    LooseObject,
    LoosePacket,
    as_object,
    index_of,
    rename,
    resealed,
    write_bundle,
    write_packet,
)
from tests.fuzz.held import BASE_DIGEST
from tests.fuzz.mutate import change, damage, lie, odd, pack, rearranged, tweak
from tests.fuzz.shapes import SHAPES, chunk, damage_alone, layer, piece, poisoned

AS_IT_IS = 0.02  # share of inputs that are samples, unchanged
LARGE_SHARE = 0.003  # ... that are made of large samples
BYTES_ALONE = {
    "manifest": 0.15,
    "plan": 0.15,
    "envelope": 0.15,
    "files": 0.05,
    "pieces": 0.02,
}  # share of inputs whose bytes alone are changed


def packet(rng: Random, sample: Sample, corpus: Corpus, signed: float = 0.1) -> bytes:
    """A packet in which one thing is wrong, and all that stands before it is right."""
    tree: LoosePacket = sample.tree
    made = LoosePacket(tree.envelope, tree.manifest, list(tree.objects))
    signer = corpus.signer if rng.random() < signed else None
    match rng.randrange(12):
        case 0:
            return write_packet(
                made, signer=signer, manifest=pack(rng, change(rng, made.manifest))
            ).body
        case 1:
            made.manifest = change_named(rng, made.manifest)
            return write_packet(made, signer=signer).body
        case 2:
            made.envelope = change_named(rng, made.envelope)
            return write_packet(made, signer=signer).body
        case 3:
            index = change(rng, [index_of(item) for item in made.objects])
            envelope = pack(rng, {**made.envelope, 10: index})
            return write_packet(made, signer=signer, envelope=envelope).body
        case 4:
            made.objects = rearranged(rng, made.objects) if made.objects else []
            return write_packet(made, signer=signer).body
        case 5:
            return lie(rng, write_packet(made, signer=signer))
    if made.objects:
        at = rng.randrange(len(made.objects))
        made.objects[at] = (content if rng.random() < 0.6 else bodies)(
            rng, made.objects[at], corpus
        )
        rename(made)
    built = write_packet(made, signer=signer)
    return lie(rng, built) if rng.random() < 0.08 else built.body


def change_named(rng: Random, tree: dict[int, Any]) -> dict[int, Any]:
    """A header with one field changed, which still names its objects."""
    keys = [key for key in tree if key not in {8, 10, 12}]
    key = rng.choice(keys)
    return {**tree, key: odd(rng, tree[key])}


def content(rng: Random, item: LooseObject, corpus: Corpus) -> LooseObject:
    """Another content under its own right digest: what the layers' reader must refuse."""
    roll = rng.random()
    if roll < 0.7 or not item.raw:
        raw = layer(rng, rng.choice([s for s in corpus.small["layer"][:24] if s.tree is not None]))
    else:
        raw = poisoned(rng, item.raw) if roll < 0.85 else tweak(rng, item.raw)
    return as_object(raw[: 2 * CHUNK_BYTES] or bytes(64), int(rng.random() < 0.15), item.named)


def bodies(rng: Random, item: LooseObject, corpus: Corpus) -> LooseObject:
    """Chunks changed, dropped, doubled or of another encoding; the root is right as a rule."""
    made = copy(item)
    made.chunks = list(item.chunks)
    at = rng.randrange(len(made.chunks)) if made.chunks else 0
    match rng.randrange(6):
        case 0 if made.chunks:
            made.chunks = rearranged(rng, made.chunks)
        case 1:
            made.encoding = rng.choice((0, 1, 2, 3, rng.randrange(8), rng.randrange(256)))
        case 2:
            made.base = rng.choice((None, bytes(32), item.named, BASE_DIGEST))
            made.encoding = rng.choice((item.encoding, rng.randrange(1, 7)))
        case _ if made.chunks:
            was = made.chunks[at]
            body = chunk(rng, rng.choice(corpus.small["chunk"]))
            encoding, _, _, raw_bytes = CHUNK_HEAD.unpack_from(body.ljust(CHUNK_HEAD.size, b"\0"))
            if rng.random() < 0.5 and len(made.chunks) == 1 and 0 < raw_bytes <= CHUNK_BYTES:
                made.raw_bytes = raw_bytes
                made.base = BASE_DIGEST if rng.random() < 0.8 else None
                was = LooseChunk(encoding, body[CHUNK_HEAD.size :], was.digest)
            else:
                was = LooseChunk(was.encoding, tweak(rng, was.body), was.digest)
            size = min(CHUNK_BYTES, made.raw_bytes - at * CHUNK_BYTES)
            made.chunks[at] = (
                resealed(was, size, based=made.base == BASE_DIGEST) if rng.random() < 0.7 else was
            )
            made.encoding = max(c.encoding for c in made.chunks)
            if made.encoding in (Encoding.RAW, Encoding.PLANES):
                made.base = None
    return made


def pieces(rng: Random, sample: Sample, corpus: Corpus) -> bytes:
    """A head and pieces: one changed, left out, doubled, early, or of another packet."""
    made = list(sample.files)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(made))
        name, body = made[at]
        roll = rng.random()
        if roll < 0.3:
            made = rearranged(rng, made) or made
        elif roll < 0.4:
            made.insert(at, (name, rng.choice(corpus.shelf("piece")).body))
        elif name == "head":
            made[at] = (name, damage_alone(rng, body))
        else:
            found = take_apart("piece", body)
            made[at] = (name, piece(rng, found) if found.apart else damage_alone(rng, body))
    return write_bundle(made)


def files(rng: Random, sample: Sample, corpus: Corpus) -> bytes:
    """Several files, one of them changed, left out, doubled or called otherwise."""
    made = list(sample.files)
    at = rng.randrange(len(made))
    name, body = made[at]
    match rng.randrange(6):
        case 0:
            made = rearranged(rng, made)
        case 1:
            made[at] = (renumbered(rng, name), body)
        case 2 if sound := [s for s in corpus.small["packet"][:40] if s.tree is not None]:
            made[at] = (name, packet(rng, rng.choice(sound), corpus))
        case _:
            made[at] = (name, damage(rng, body, made[0][1]))
    return write_bundle(made[:8])


def renumbered(rng: Random, name: str) -> str:
    """A part that calls itself another one of a set of another size."""
    stem, dash, end = name.rpartition("-of-")
    if not dash:
        return rng.choice(("a.mfd", "b.mfd", "a.mfd.1-of-1"))
    count = rng.choice(("0", "1", "2", "00003", "9999", "10000", "99999999999999"))
    ending = end[end.find(".") :] if "." in end else ""
    return f"{stem[: stem.rfind('.') + 1]}{rng.randrange(4)}-of-{count}{ending}"


WHOLE: dict[str, Callable[[Random, Sample, Corpus], bytes]] = {
    "packet": packet, "signed": partial(packet, signed=0.95), "files": files,
    "pieces": pieces,
}  # fmt: skip


def draw(rng: Random, corpus: Corpus, kind: str) -> bytes:
    """Return one input of a kind: mostly a form with one thing wrong, else bytes changed."""
    large = corpus.shelf(kind, large=True)
    some = large if large and rng.random() < LARGE_SHARE else corpus.shelf(kind)
    sample = rng.choice(some)
    if not sample.apart and rng.random() < 0.8:  # what has no form does not come far
        sample = rng.choice(some)
    return alter(rng, corpus, kind, sample)


def alter(rng: Random, corpus: Corpus, kind: str, sample: Sample) -> bytes:
    """Return a sample changed."""
    roll = rng.random()
    if roll < AS_IT_IS:
        return sample.body
    if roll < BYTES_ALONE.get(kind, 0.25) or not sample.apart:
        return damage(rng, sample.body, rng.choice(corpus.shelf(kind)).body)
    if kind in WHOLE:
        made = WHOLE[kind](rng, sample, corpus)
    else:
        made = SHAPES[kind](rng, sample)
    return damage(rng, made, sample.body) if made and roll < 0.28 else made
