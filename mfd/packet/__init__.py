"""The packet codec: bytes <-> values. Embeddable: no sockets, no torch, no asyncio."""

from mfd.packet.carried import CarriedObject, chunks_of
from mfd.packet.chunks import Encoding, decode_chunk, encode_chunk, item_bytes_at, item_bytes_of
from mfd.packet.envelope import Envelope, IndexEntry, decode_envelope, encode_envelope
from mfd.packet.errors import Fault, PacketError
from mfd.packet.manifest import (
    MANIFEST_DOMAIN,
    Kind,
    Manifest,
    Progress,
    Scale,
    decode_manifest,
    encode_manifest,
    sign_manifest,
    verify_manifest,
    version_of,
)
from mfd.packet.objects import (
    LayerObject,
    chunk_digest,
    chunk_root,
    object_digest,
    pack_layer,
    unpack_layer,
    wrap_object,
)
from mfd.packet.packet import Packet, decode, encode
from mfd.packet.plan import PLAN_DOMAIN, Plan, decode_plan, encode_plan
from mfd.packet.signing import Signer, Verifier, open_sealed, seal, signing_input
from mfd.packet.task import LayerRef, LearnResult, LearnTask, Range, Sibling
from mfd.packet.tensors import DTYPES, Buffer, Tensor

__all__ = [
    "DTYPES",
    "MANIFEST_DOMAIN",
    "PLAN_DOMAIN",
    "Buffer",
    "CarriedObject",
    "Encoding",
    "Envelope",
    "Fault",
    "IndexEntry",
    "Kind",
    "LayerObject",
    "LayerRef",
    "LearnResult",
    "LearnTask",
    "Manifest",
    "Packet",
    "PacketError",
    "Plan",
    "Progress",
    "Range",
    "Scale",
    "Sibling",
    "Signer",
    "Tensor",
    "Verifier",
    "chunk_digest",
    "chunk_root",
    "chunks_of",
    "decode",
    "decode_chunk",
    "decode_envelope",
    "decode_manifest",
    "decode_plan",
    "encode",
    "encode_chunk",
    "encode_envelope",
    "encode_manifest",
    "encode_plan",
    "item_bytes_at",
    "item_bytes_of",
    "object_digest",
    "open_sealed",
    "pack_layer",
    "seal",
    "sign_manifest",
    "signing_input",
    "unpack_layer",
    "verify_manifest",
    "version_of",
    "wrap_object",
]
