"""Every limit of the format, with its unit and its reason. Checked before memory is taken.

Source: spec/packet.md, section "Limits".
"""

from __future__ import annotations

CHUNK_BYTES = 1 << 20  # raw chunk: the unit of encoding, checking, resuming and deduplicating
ALIGN_BYTES = 64  # a cache line, and the widest vector register in use
MANIFEST_BYTES_MAX = 32 << 10
PLAN_BYTES_MAX = 64 << 10
ENVELOPE_BYTES_MAX = (1 << 16) - 1  # its length field is a u16
LAYERS_MAX = 256  # keeps a manifest under its limit
PARENTS_MAX = 64
RANGES_MAX = 4
TENSORS_MAX = 65_536  # in one layer object
TABLE_BYTES_MAX = 16 << 20  # of one layer object
RANK_MAX = 16
NAME_BYTES_MAX = 512  # tensor, layer and data names, UTF-8
OBJECT_BYTES_MAX = 1 << 40  # one layer object, raw
NESTING_MAX = 8
VISITED_MAX = 256
