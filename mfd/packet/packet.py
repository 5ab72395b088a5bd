"""One packet: a model version, signed, with all or some of its objects. Also the file form `.mfd`.

    | magic 4 | format u8 | flags u8 | envelope bytes u16 | manifest bytes u32 | signature bytes u16
    | zero u16 | envelope | manifest | signature | zeros to 64 | objects, each aligned to 64 |

Rules of this file: tensors are not copied on the way out, nor on the way in where they lie raw.
Source: spec/packet.md, section "Packet".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from mfd.packet.carried import (
    Base,
    CarriedObject,
    Mapped,
    check_entry,
    decode_object,
    encode_object,
)
from mfd.packet.chunks import Encoding
from mfd.packet.envelope import NOWHERE, Envelope, encode_envelope
from mfd.packet.errors import Fault, PacketError
from mfd.packet.given import as_view, check_layer_name, check_signer, check_verify
from mfd.packet.heads import FORMAT, MAGIC, PREAMBLE, Head, head_bytes, named, read_head
from mfd.packet.limits import ALIGN_BYTES, DECODED_BYTES_MAX, DIGEST_BYTES, LAYERS_MAX
from mfd.packet.manifest import (
    Claim,
    Kind,
    Manifest,
    decode_manifest,
    pack_manifest,
    sign_manifest,
)
from mfd.packet.objects import (
    Buffer,
    LayerObject,
    LazyLayer,
    object_digest,
    pack_layer,
    pack_lazily,
    unpack_layer,
)
from mfd.packet.signing import Signer, Verifier
from mfd.packet.task import LayerRef
from mfd.packet.tensors import Tensor

if TYPE_CHECKING:
    from mmap import mmap

__all__ = [
    "FORMAT",
    "MAGIC",
    "PREAMBLE",
    "Chosen",
    "Head",
    "Held",
    "Packet",
    "bases_of",
    "carried",
    "decode",
    "encode",
    "encoding_of",
    "head_bytes",
    "holder",
    "named",
    "pack_head",
    "read_head",
    "require_packet",
]

NOBODY = bytes(DIGEST_BYTES)


@dataclass(frozen=True, slots=True, repr=False)
class Packet:
    """A manifest with its signature, an envelope, and objects by digest."""

    manifest: Manifest
    manifest_bytes: bytes  # exactly what is signed
    signature: bytes  # 64 bytes, or none: for local use
    objects: Mapping[bytes, LayerObject | LazyLayer | CarriedObject]
    envelope: Envelope = NOWHERE  # its index is written anew by `encode`

    def __repr__(self) -> str:
        refs = self.manifest.layers
        here = sum(ref.digest in self.objects for ref in refs)
        size = sum(ref.raw_bytes for ref in refs)
        by = f"signed by {self.manifest.trainer.hex()[:8]}" if self.signature else "not signed"
        walker = self.manifest.walker.hex()[:8]
        return (
            f"<Packet: walker {walker}, version {self.manifest.seq}, {here} of {len(refs)} layers "
            f"here, {size} bytes raw in all, {by}>"
        )

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        objects: Iterable[LayerObject | LazyLayer | CarriedObject],
        *,
        signer: Signer | None = None,
        envelope: Envelope = NOWHERE,
    ) -> Packet:
        """Make a packet of a manifest and those of its objects that are to travel.

        Raises: ValueError where the manifest breaks a rule or does not name an object.
        """
        if not isinstance(manifest, Manifest):
            raise TypeError(f"a packet has a Manifest, not a {type(manifest).__name__}")
        by_digest = {_require_object(item).digest: item for item in objects}
        if strangers := by_digest.keys() - named(manifest).keys():
            raise ValueError(f"the manifest names no object {min(strangers).hex()}")
        if signer:
            body, signature = sign_manifest(manifest, signer)
            return cls(decode_manifest(body), body, signature, by_digest, envelope)
        body, manifest = pack_manifest(manifest)
        return cls(manifest, body, b"", by_digest, envelope)

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, Any],
        *,
        signer: Signer | None = None,
        walker: bytes = NOBODY,
        model: bytes = NOBODY,
        plan: bytes = NOBODY,
        seq: int = 0,
        kind: Kind = Kind.LAYERS,
        claims: Mapping[str, Claim] | None = None,
        software: str = "",
        envelope: Envelope = NOWHERE,
    ) -> Packet:
        """Make a packet of {tensor name: array} or {layer name: {tensor name: array}}.

        Arrays are numpy arrays, torch tensors or Tensors; layers keep their order; flat tensors
        make one layer named "model". Nothing is copied. A layer may also be a function that
        loads its tensors: it is called to name the layer, and again whenever the layer is encoded,
        so that models larger than memory can be sent (see `encode_stream`).
        Raises: TypeError or ValueError for what cannot travel.
        """
        if not isinstance(tensors, Mapping):
            kind = type(tensors).__name__
            raise TypeError(f"a packet is made of a map of names to arrays, not of a {kind}")
        if signer is not None:
            check_signer(signer)
        layered = [isinstance(value, Mapping) or _loads(value) for value in tensors.values()]
        if any(layered) and not all(layered):
            raise TypeError("either all values are arrays, or all are layers: maps of arrays")
        layers = dict(tensors) if any(layered) else {"model": tensors}
        if len(layers) > LAYERS_MAX:
            raise ValueError(
                f"{len(layers)} layers: a packet has at most {LAYERS_MAX}; put neighbours into one "
                "layer, as cut_by_name does"
            )
        packed = {check_layer_name(name): _pack(name, layer) for name, layer in layers.items()}
        manifest = Manifest(
            walker=walker,
            model=model,
            seq=seq,
            layers=tuple(
                LayerRef(index, name, item.digest, item.raw_bytes)
                for index, (name, item) in enumerate(packed.items())
            ),
            plan=plan,
            trainer=signer.public_key if signer else NOBODY,
            kind=kind,
            claims=claims or {},
            software=software,
        )
        return cls.of(manifest, packed.values(), signer=signer, envelope=envelope)

    def object(self, digest: bytes, mapped: Mapped = map) -> Buffer:
        """Return one raw object: a view where it lies raw, else decoded.

        `mapped` may be the `map` of an executor, to decode with many threads.
        Raises: PacketError; Fault.OBJECT where the packet does not carry it.
        """
        item = self.objects.get(digest)
        if item is None:
            if not isinstance(digest, bytes):
                kind = type(digest).__name__
                raise TypeError(f"an object is asked for by its digest, 32 bytes, not by a {kind}")
            raise PacketError(Fault.OBJECT, digest.hex()[:16])
        return item.buffer(mapped) if isinstance(item, CarriedObject) else item.tobytes()

    def layer(self, index: int, mapped: Mapped = map) -> dict[str, Tensor]:
        """Return the tensors of one layer.

        Raises: PacketError; IndexError where the model has no such layer.
        """
        count = len(self.manifest.layers)
        if not isinstance(index, int):
            raise TypeError(f"a layer is asked for by its number, 0 to {count - 1}, not {index!r}")
        if not -count <= index < count:
            raise IndexError(f"there is no layer {index}: this model has layers 0 to {count - 1}")
        return unpack_layer(self.object(self.manifest.layers[index].digest, mapped))

    def tensors(self, mapped: Mapped = map) -> dict[str, dict[str, Tensor]]:
        """Return the tensors of every layer that the packet carries, by layer name.

        Raises: PacketError.
        """
        here = [ref for ref in self.manifest.layers if ref.digest in self.objects]
        return {ref.name: self.layer(ref.index, mapped) for ref in here}

    def check(self) -> None:
        """Compare the content of every carried object with its digest.

        Raises: PacketError with Fault.ENCODING or Fault.DIGEST.
        """
        for item in self.objects.values():
            if isinstance(item, CarriedObject):
                item.check()
            elif object_digest(*item.parts) != item.digest:
                raise PacketError(Fault.DIGEST, f"object {item.digest.hex()[:16]}")


def _pack(name: str, layer: Any) -> LayerObject | LazyLayer:
    if _loads(layer):
        return pack_lazily(layer)
    try:
        return pack_layer(layer)
    except (TypeError, ValueError) as exc:
        kind = TypeError if isinstance(exc, TypeError) else ValueError
        raise kind(f"layer {name!r}: {exc}") from exc


def _require_object(item: Any) -> LayerObject | LazyLayer | CarriedObject:
    if not isinstance(item, LayerObject | LazyLayer | CarriedObject):
        kind = type(item).__name__
        raise TypeError(f"an object of a packet is what pack_layer or wrap_object make, not {kind}")
    return item


def require_packet(value: object, what: str = "a packet") -> None:
    """Raise TypeError where a caller gives something else for a Packet."""
    if not isinstance(value, Packet):
        kind = type(value).__name__
        hint = "decode it first" if isinstance(value, bytes | bytearray | memoryview) else ""
        hint = hint or "make one with Packet.from_tensors, or decode one"
        raise TypeError(f"{what} is given as a Packet, not as {kind}: {hint}")


def _loads(layer: object) -> TypeGuard[Callable[[], Mapping[str, Any]]]:
    return callable(layer) and not isinstance(layer, Mapping)


class _Choice(Protocol):
    @property
    def encoding(self) -> Encoding: ...


Chosen = Encoding | Mapping[bytes, Encoding | _Choice]  # for all objects, or by digest
Held = Packet | Mapping[bytes, Buffer]  # objects that a reader has already, by digest


def encoding_of(digest: bytes, chosen: Chosen) -> Encoding:
    """Return the encoding chosen for an object; PLANES where nothing was."""
    if not isinstance(chosen, Mapping | Encoding):
        raise TypeError(f"{chosen!r} is no encoding: give Encoding.PLANES or another, or a map")
    found = chosen if isinstance(chosen, Encoding) else chosen.get(digest, Encoding.PLANES)
    encoding = found if isinstance(found, Encoding) else getattr(found, "encoding", None)
    if not isinstance(encoding, Encoding):
        raise TypeError(f"{found!r} is no encoding: give Encoding.PLANES or another, or a Choice")
    return encoding


def bases_of(packet: Packet, base: Packet | None) -> dict[bytes, Base]:
    """Return for each object that the packet carries the layer of the same name in `base`.

    Raises: PacketError where the base is not sound.
    """
    require_packet(packet)
    if base is None:
        return {}
    require_packet(base, "a base")
    before = {ref.name: ref.digest for ref in base.manifest.layers if ref.digest in base.objects}
    return {
        ref.digest: Base(before[ref.name], base.object(before[ref.name]))
        for ref in packet.manifest.layers
        if ref.digest in packet.objects and before.get(ref.name, ref.digest) != ref.digest
    }


def carried(packet: Packet) -> list[LayerObject | LazyLayer | CarriedObject]:
    """Return the objects of a packet in the order in which they travel, that of the layers."""
    found = (packet.objects.get(digest) for digest in named(packet.manifest))
    return [item for item in found if item is not None]


def encode(
    packet: Packet,
    encoding: Chosen = Encoding.PLANES,
    *,
    base: Packet | None = None,
    mapped: Mapped = map,
) -> list[Buffer]:
    """Return the packet as parts to be written one after the other; RAW copies no tensor.

    `encoding` is one for all objects, or one by digest (`choose_all` makes such a map for a link).
    `base` is a packet that the reader holds: DELTA and the like build upon its layers of the same
    names. `mapped` may be the `map` of an executor, to encode with many threads.
    Raises: ValueError for an envelope that cannot travel; PacketError for a base that is not sound.
    """
    index, parts = [], []
    bases = bases_of(packet, base)
    for item in carried(packet):
        chosen = encoding_of(item.digest, encoding)
        entry, encoded = encode_object(item, chosen, bases.get(item.digest), mapped)
        index.append(entry)
        parts += encoded
    return [pack_head(packet, replace(packet.envelope, index=tuple(index))), *parts]


def pack_head(packet: Packet, envelope: Envelope) -> bytes:
    """Return what stands before the objects: preamble, envelope, manifest, signature, padding.

    Raises: ValueError for an envelope that cannot travel.
    """
    require_packet(packet)
    first, body, signature = encode_envelope(envelope), packet.manifest_bytes, packet.signature
    preamble = PREAMBLE.pack(MAGIC, FORMAT, 0, len(first), len(body), len(signature), 0)
    head = b"".join([preamble, first, body, signature])
    return head + bytes(-len(head) % ALIGN_BYTES)


def holder(held: Held | None) -> Callable[[bytes], Buffer | None]:
    """Return a function that gives a raw object that is held, or None."""
    if held is None:
        return lambda _: None
    if isinstance(held, Packet):
        return lambda digest: held.object(digest) if digest in held.objects else None
    if not isinstance(held, Mapping):
        kind = type(held).__name__
        raise TypeError(f"`held` is a Packet, or raw objects by digest, not a {kind}")
    return held.get


def decode(
    buffer: Buffer | mmap,
    verify: Verifier | None = None,
    *,
    held: Held | None = None,
    decoded_bytes_max: int = DECODED_BYTES_MAX,
) -> Packet:
    """Read a packet over bytes, a memoryview or an mmap, which it borrows.

    Raw objects stay where they are; encoded ones are decoded when asked for, and may come to
    `decoded_bytes_max` bytes in all. Chunk tables are proven, content is not: see `Packet.check`.
    With `verify`, an unsigned packet is refused. `held` are the objects upon which others build.
    Raises: PacketError, whatever the bytes.
    """
    view = as_view(buffer, "a packet")
    check_verify(verify)
    head = read_head(view, verify, decoded_bytes_max)
    end = head.size
    objects = {}
    holds = holder(held)
    for entry in head.envelope.index:
        base = check_entry(entry, holds)
        if len(view) < end + entry.encoded_bytes:
            raise PacketError(Fault.TRUNCATED, f"object {entry.digest.hex()[:16]}")
        objects[entry.digest] = decode_object(entry, view[end : end + entry.encoded_bytes], base)
        end += entry.encoded_bytes
    if end != len(view):
        raise PacketError(Fault.TRAILING, f"{len(view) - end} bytes after the last object")
    return Packet(head.manifest, head.manifest_bytes, head.signature, objects, head.envelope)
