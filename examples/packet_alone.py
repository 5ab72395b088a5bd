"""The packet codec by itself: no network, no torch, nothing copied on the way out or in."""

import tempfile
from pathlib import Path

import numpy as np

from mfd.packet import Packet, decode, encode

weights = {
    "encoder": {"weight": np.random.default_rng(1).standard_normal((512, 784), dtype=np.float32)},
    "head": {"weight": np.zeros((10, 512), np.float32), "bias": np.zeros(10, np.float32)},
}
packet = Packet.from_tensors(weights, claims={"samples": 60_000}, software="my app")
path = Path(tempfile.mkdtemp()) / "model.mfd"
with path.open("wb") as file:
    file.writelines(encode(packet))

received = decode(path.read_bytes())
received.check()  # every layer against the digest that names it
for ref in received.manifest.layers:
    shapes = {name: t.shape for name, t in received.layer(ref.index).items()}
    print(f"{ref.index} {ref.name:8} {ref.digest.hex()[:12]} {ref.raw_bytes:>9,} bytes {shapes}")
assert np.array_equal(received.layer(0)["weight"].array(), weights["encoder"]["weight"])

# Only what the receiver lacks travels: leave out the layers that it has.
update = Packet.of(packet.manifest, [packet.objects[packet.manifest.layers[1].digest]])
sizes = [sum(len(part) for part in encode(p)) for p in (packet, update)]
print(f"{path.name}: {sizes[0]:,} bytes; with only the head: {sizes[1]:,} bytes")
