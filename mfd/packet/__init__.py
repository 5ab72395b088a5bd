"""The packet codec: bytes <-> values. Embeddable: no sockets, no torch, no asyncio.

What a packet itself needs is imported here; the rest when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mfd.packet.carried import CarriedObject, chunks_of
from mfd.packet.chunks import Encoding, decode_chunk, encode_chunk
from mfd.packet.envelope import Envelope, IndexEntry, decode_envelope, encode_envelope
from mfd.packet.errors import Fault, PacketError
from mfd.packet.layout import item_bytes_at, item_bytes_of
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
    LazyLayer,
    chunk_digest,
    chunk_root,
    object_digest,
    pack_layer,
    unpack_layer,
    wrap_object,
)
from mfd.packet.packet import Head, Packet, decode, encode
from mfd.packet.signing import Signer, Verifier, open_sealed, seal, signing_input
from mfd.packet.task import LayerRef, LearnResult, LearnTask, Range, Sibling
from mfd.packet.tensors import DTYPES, Buffer, Tensor

if TYPE_CHECKING:
    from mfd.packet.choosing import Choice, Speeds, choose, choose_all
    from mfd.packet.committing import Committed, Way, commit
    from mfd.packet.cutting import cut_by_name
    from mfd.packet.damage import Survey, survey
    from mfd.packet.merging import merge
    from mfd.packet.pieces import (
        Assembly,
        Piece,
        PieceKind,
        Want,
        decode_piece,
        encode_piece,
        head_of,
        pieces_of,
    )
    from mfd.packet.plan import PLAN_DOMAIN, Plan, decode_plan, encode_plan
    from mfd.packet.safetensors import (
        SafeTensors,
        map_safetensors,
        read_safetensors,
        write_safetensors,
    )
    from mfd.packet.scaling import Axes, Cut, scale
    from mfd.packet.states import State, from_state_dict, to_state_dict
    from mfd.packet.stream import RawChunk, StreamDecoder, encode_stream, read_stream

LATER = {
    "choosing": ("Choice", "Speeds", "choose", "choose_all"),
    "committing": ("Committed", "Way", "commit"),
    "cutting": ("cut_by_name",),
    "merging": ("merge",),
    "pieces": (
        "Assembly",
        "Piece",
        "PieceKind",
        "Want",
        "decode_piece",
        "encode_piece",
        "head_of",
        "pieces_of",
    ),
    "plan": ("PLAN_DOMAIN", "Plan", "decode_plan", "encode_plan"),
    "safetensors": ("SafeTensors", "map_safetensors", "read_safetensors", "write_safetensors"),
    "scaling": ("Axes", "Cut", "scale"),
    "states": ("State", "from_state_dict", "to_state_dict"),
    "stream": ("RawChunk", "StreamDecoder", "encode_stream", "read_stream"),
    "damage": ("Survey", "survey"),
}
_HOMES = {name: module for module, names in LATER.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


__all__ = [
    "DTYPES",
    "MANIFEST_DOMAIN",
    "PLAN_DOMAIN",
    "Assembly",
    "Axes",
    "Buffer",
    "CarriedObject",
    "Choice",
    "Committed",
    "Cut",
    "Encoding",
    "Envelope",
    "Fault",
    "Head",
    "IndexEntry",
    "Kind",
    "LayerObject",
    "LayerRef",
    "LazyLayer",
    "LearnResult",
    "LearnTask",
    "Manifest",
    "Packet",
    "PacketError",
    "Piece",
    "PieceKind",
    "Plan",
    "Progress",
    "Range",
    "RawChunk",
    "SafeTensors",
    "Scale",
    "Sibling",
    "Signer",
    "Speeds",
    "State",
    "StreamDecoder",
    "Survey",
    "Tensor",
    "Verifier",
    "Want",
    "Way",
    "choose",
    "choose_all",
    "chunk_digest",
    "chunk_root",
    "chunks_of",
    "commit",
    "cut_by_name",
    "decode",
    "decode_chunk",
    "decode_envelope",
    "decode_manifest",
    "decode_piece",
    "decode_plan",
    "encode",
    "encode_chunk",
    "encode_envelope",
    "encode_manifest",
    "encode_piece",
    "encode_plan",
    "encode_stream",
    "from_state_dict",
    "head_of",
    "item_bytes_at",
    "item_bytes_of",
    "map_safetensors",
    "merge",
    "object_digest",
    "open_sealed",
    "pack_layer",
    "pieces_of",
    "read_safetensors",
    "read_stream",
    "scale",
    "seal",
    "sign_manifest",
    "signing_input",
    "survey",
    "to_state_dict",
    "unpack_layer",
    "verify_manifest",
    "version_of",
    "wrap_object",
    "write_safetensors",
]
