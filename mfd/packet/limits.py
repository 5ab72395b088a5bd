"""Every limit of the format, with its unit and its reason. Checked before memory is taken.

Source: spec/packet.md, section "Limits".
"""

from __future__ import annotations

CHUNK_BYTES = 1 << 20  # raw chunk: the unit of encoding, checking, resuming and deduplicating
ALIGN_BYTES = 64  # a cache line, and the widest vector register in use
DIGEST_BYTES = 32  # BLAKE3
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
ITEMS_MAX = 1_024  # entries of one list or map in a header
KEY_MAX = (1 << 16) - 1  # of a header field
TEXT_BYTES_MAX = 4_096  # one text in a header
NAMES_MAX = 64  # data names in a plan: each costs a route at every peer
LEARN_MAX = 64  # settings for the learner in a plan
CLAIMS_MAX = 32
CLAIM_NAME_BYTES_MAX = 64
CLAIM_TEXT_BYTES_MAX = 256
SOFTWARE_BYTES_MAX = 128
SAMPLER_BYTES_MAX = 8 << 10  # a Mersenne twister's state is 5 KiB
LAPS_MAX = 10_000
HOPS_MAX = 255  # hop limit of an envelope
INDEX_MAX = LAYERS_MAX + 1  # every layer, and the plan
DECODED_BYTES_MAX = 64 << 30  # all objects of one packet, raw; a caller may ask for less or more
