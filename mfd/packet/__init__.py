"""The packet codec: bytes <-> values. Embeddable: no sockets, no torch, no asyncio."""

from mfd.packet.carried import CarriedObject, chunks_of
from mfd.packet.chunks import Encoding, decode_chunk, encode_chunk, item_bytes_at, item_bytes_of
from mfd.packet.commit import Committed, Way, commit
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
from mfd.packet.merge import merge
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
from mfd.packet.safetensors import (
    SafeTensors,
    map_safetensors,
    read_safetensors,
    write_safetensors,
)
from mfd.packet.scale import Axes, Cut, scale
from mfd.packet.signing import Signer, Verifier, open_sealed, seal, signing_input
from mfd.packet.states import State, from_state_dict, to_state_dict
from mfd.packet.task import LayerRef, LearnResult, LearnTask, Range, Sibling
from mfd.packet.tensors import DTYPES, Buffer, Tensor

__all__ = [
    "DTYPES",
    "MANIFEST_DOMAIN",
    "PLAN_DOMAIN",
    "Axes",
    "Buffer",
    "CarriedObject",
    "Committed",
    "Cut",
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
    "SafeTensors",
    "Scale",
    "Sibling",
    "Signer",
    "State",
    "Tensor",
    "Verifier",
    "Way",
    "chunk_digest",
    "chunk_root",
    "chunks_of",
    "commit",
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
    "from_state_dict",
    "item_bytes_at",
    "item_bytes_of",
    "map_safetensors",
    "merge",
    "object_digest",
    "open_sealed",
    "pack_layer",
    "read_safetensors",
    "scale",
    "seal",
    "sign_manifest",
    "signing_input",
    "to_state_dict",
    "unpack_layer",
    "verify_manifest",
    "version_of",
    "wrap_object",
    "write_safetensors",
]
