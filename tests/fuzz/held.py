"""The version that every reader here holds already: what differences build upon.

Rules of this file: no chance, so that an input means the same under every seed.
"""

from __future__ import annotations

import numpy as np

from mfd.packet import Packet, pack_layer

NAME = "layer.0"
NUMBERS = ((np.arange(1000) * 2654435761 % (1 << 20) - (1 << 19)) / (1 << 24)).astype("<f4")
HELD = Packet.from_tensors({NAME: {"w": NUMBERS}})
BASE = pack_layer({"w": NUMBERS}).tobytes()  # of its only layer, which is one chunk
BASE_DIGEST = HELD.manifest.layers[0].digest
