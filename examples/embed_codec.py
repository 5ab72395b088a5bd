"""The packet codec by itself, in a plain script: no network, no torch.

python examples/embed_codec.py
"""

import tempfile
from pathlib import Path

import numpy as np

from mfd.packet import (
    Assembly,
    Encoding,
    Packet,
    choose_all,
    commit,
    decode,
    encode,
    encode_piece,
    encode_stream,
    head_of,
    pieces_of,
    read_stream,
    survey,
)

dice = np.random.default_rng(1)
folder = Path(tempfile.mkdtemp())


def size(parts):
    return sum(len(part) for part in parts)


# 1. A model as a packet: layers of named arrays, each layer under the digest of its content.
old = {
    "encoder": {"weight": dice.normal(0, 0.02, (1024, 768)).astype("f4")},
    "head": {"weight": np.zeros((10, 1024), "f4"), "bias": np.zeros(10, "f4")},
}
before = Packet.from_tensors(old, claims={"samples": 60_000}, software="my app")
with (folder / "model.mfd").open("wb") as file:
    file.writelines(encode(before))  # buffers, one after the other; RAW would copy no tensor

received = decode((folder / "model.mfd").read_bytes())  # bytes, a memoryview or an mmap
received.check()  # every chunk against the digest that names it
for ref in received.manifest.layers:
    shapes = {name: t.shape for name, t in received.layer(ref.index).items()}
    print(f"{ref.index} {ref.name:8} {ref.digest.hex()[:12]} {ref.raw_bytes:>9,} bytes {shapes}")
assert np.array_equal(received.layer(0)["weight"].array(), old["encoder"]["weight"])

# 2. Training moved every weight a little. The receiver holds the old version: send the difference.
new = {**old, "encoder": {"weight": old["encoder"]["weight"] + dice.normal(0, 1e-4, (1024, 768))}}
new["encoder"]["weight"] = new["encoder"]["weight"].astype("f4")
after = Packet.from_tensors(new)
delta = encode(after, Encoding.DELTA, base=before)
print(f"lossless: {size(encode(after)):,} bytes; as a difference: {size(delta):,}")
assert decode(b"".join(delta), held=before).layer(0)["weight"].data == after.layer(0)["weight"].data

# 3. Smaller, with a stated loss: four bits a weight, the same bits on every machine.
small = commit(new["encoder"], "delta-int4", base=old["encoder"])
print(f"at most {small.error_bound['weight']:.1e} away; what is lost stays in small.residual")
committed = Packet.from_tensors({**new, "encoder": small.tensors})
choices = choose_all(committed, link_bps=20e6, base=before)
print(choices[committed.manifest.layers[0].digest].why)
print(f"committed: {size(encode(committed, choices, base=before)):,} bytes")

# 4. In pieces, in any order, some of them twice: over anything that carries a MiB.
pieces = [b"".join(encode_piece(piece)) for piece in pieces_of(after)]
lists, chunks = pieces[:2], pieces[2:]
assembly = Assembly(decode(head_of(after)))
for piece in (*lists, *reversed(chunks), *chunks):
    assembly.add(piece)
assert not list(assembly.missing())
assembly.packet().check()

# 5. Larger than memory: a layer may be a function that loads it; out and in chunk by chunk.


def loader(seed):
    return lambda: {"weight": np.random.default_rng(seed).normal(0, 0.02, 500_000).astype("f4")}


lazy = Packet.from_tensors({f"block{i}": loader(i) for i in range(3)})
with (folder / "large.mfd").open("wb") as file:
    file.writelines(encode_stream(lazy))
with (folder / "large.mfd").open("rb") as file:
    head, *chunks = read_stream(file.read)
print(f"{len(head.manifest.layers)} layers came as {len(chunks)} chunks of at most 1 MiB")

# 6. A damaged file: what is bad is named, what is good can be used.
body = bytearray((folder / "model.mfd").read_bytes())
body[len(body) // 2] ^= 1
for found in survey(bytes(body)).objects:
    bad = [chunk.index for chunk in found.bad]
    print(f"{found.layers[0]}: {found.good} of {found.entry.chunk_count} chunks good, bad: {bad}")
