"""A caller's own mistakes: one sentence that says what is wrong and where, never an accident."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfd import packet as p
from mfd.packet.limits import LAYERS_MAX

ONE = np.zeros(3, np.float32)
PACKET = p.Packet.from_tensors({"a": {"w": ONE}})
BODY = b"".join(p.encode(PACKET))
DIGEST = PACKET.manifest.layers[0].digest


def made(tensors: Any, **more: Any) -> p.Packet:
    return p.Packet.from_tensors(tensors, **more)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: made({"a": {1: ONE}}), TypeError, "layer 'a': the name of a tensor is text"),
        (lambda: made({1: {"w": ONE}}), TypeError, "the name of a layer is text, not 1"),
        (lambda: made({"a": {"w": object()}}), TypeError, "layer 'a': tensor 'w': a value of type"),
        (lambda: made({"a": {"w": "x"}}), TypeError, "type str is no array"),
        (lambda: made({"a": {"w": [[1], [1, 2]]}}), TypeError, "its rows are unlike"),
        (lambda: made({"a": {"\ud800": ONE}}), ValueError, "cannot be written as UTF-8"),
        (lambda: made({"a" * 600: {"w": ONE}}), ValueError, "has 600: 1 to 512 bytes"),
        (lambda: made({"": {"w": ONE}}), ValueError, "layer name '' has none"),
        (lambda: made({"w": ONE}, seq="x"), ValueError, r"cannot travel \(seq\)"),
        (lambda: made({"w": ONE}, walker=b"x"), ValueError, r"cannot travel \(walker\)"),
        (lambda: made({"w": ONE}, signer=b"k"), TypeError, "a signer has `public_key` and `sign`"),
        (lambda: p.Packet.of(b"x", []), TypeError, "a packet has a Manifest, not a bytes"),
        (lambda: p.Packet.of(PACKET.manifest, [b"x"]), TypeError, "what pack_layer or wrap_object"),
        (lambda: p.choose_all(PACKET, link_bps=".."), TypeError, r"bits per second.*not '\.\.'"),
        (lambda: p.choose_all(PACKET, link_bps=0), ValueError, "nothing to choose for such a link"),
        (lambda: p.choose_all(BODY, link_bps=1e6), TypeError, "as bytes: decode it first"),
        (lambda: p.choose("x", link_bps=1e6), TypeError, "read or map the file first"),
        (lambda: p.choose(link_bps=1e6), ValueError, "an object of no bytes"),
        (lambda: p.Assembly(BODY), TypeError, "head of an Assembly.*decode it first"),
        (lambda: p.Assembly(PACKET, held=BODY), TypeError, "`held` is a Packet, or raw objects"),
        (lambda: p.Assembly(PACKET).add("x"), TypeError, "a piece is read from bytes"),
        (lambda: p.decode(Path("m.mfd")), TypeError, "PosixPath: read or map the file first"),
        (lambda: p.decode(p.encode(PACKET)), TypeError, "join the parts first"),
        (lambda: p.decode(None), TypeError, "not NoneType"),
        (lambda: p.decode(BODY, b"key"), TypeError, "`verify` is a function"),
        (lambda: p.encode(BODY), TypeError, "decode it first"),
        (lambda: p.encode(PACKET, {DIGEST: "planes"}), TypeError, "'planes' is no encoding"),
        (lambda: list(p.encode_stream(BODY)), TypeError, "decode it first"),
        (lambda: list(p.pieces_of(BODY)), TypeError, "decode it first"),
        (lambda: p.head_of(BODY), TypeError, "decode it first"),
        (lambda: p.encode_piece(BODY), TypeError, "takes a Piece, not a bytes"),
        (lambda: p.decode_piece("x"), TypeError, "a piece is read from bytes"),
        (lambda: p.StreamDecoder().feed("x"), TypeError, "a stream is read from bytes"),
        (lambda: list(p.read_stream(BODY)), TypeError, "a function that reads"),
        (lambda: p.survey("x"), TypeError, "a packet is read from bytes"),
        (lambda: PACKET.layer(5), IndexError, "there is no layer 5: this model has layers 0 to 0"),
        (lambda: PACKET.layer("a"), TypeError, "by its number, 0 to 0, not 'a'"),
        (lambda: PACKET.object("a"), TypeError, "by its digest, 32 bytes, not by a str"),
        (lambda: p.scale(PACKET, 0.5), TypeError, "by a Scale"),
        (lambda: p.merge(BODY, []), TypeError, "a model is a map of layer names"),
        (lambda: p.merge(PACKET, [PACKET]), TypeError, "pairs"),
        (lambda: p.commit({"a": {"w": ONE}}, "int8"), TypeError, "tensor 'a': a value of type"),
        (lambda: p.pack_layer([ONE]), TypeError, "a layer is a map of tensor names"),
        (lambda: p.unpack_layer("x"), TypeError, "a layer is read from bytes"),
        (lambda: p.write_safetensors([ONE]), TypeError, "a safetensors file is a map"),
        (lambda: p.read_safetensors("x"), TypeError, "a safetensors file is read from bytes"),
        (lambda: p.from_state_dict([ONE]), TypeError, "a state_dict is a map"),
        (lambda: p.to_state_dict(5), TypeError, "a state is a map"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(
    call: Callable[[], object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        call()
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_too_many_layers_are_told_with_a_way_out() -> None:
    many = {str(i): {"w": ONE} for i in range(300)}
    with pytest.raises(ValueError, match=r"300 layers: a packet has at most 256; .*cut_by_name"):
        made(many)
    flat = {f"h.{i}.mlp.w": ONE for i in range(300)}
    cut = p.cut_by_name(flat)
    packet = made({layer: {name: flat[name] for name in names} for layer, names in cut.items()})
    assert len(packet.manifest.layers) <= LAYERS_MAX


def test_tensors_of_torch_that_cannot_travel() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="layer 'a': tensor 'w': it is a meta tensor"):
        made({"a": {"w": torch.zeros(3, device="meta")}})
    with pytest.raises(TypeError, match=r"to_dense\(\)"):
        made({"a": {"w": torch.zeros(3).to_sparse()}})


def test_a_packet_is_shown_in_one_line() -> None:
    shown = repr(PACKET)
    assert shown == (
        "<Packet: walker 00000000, version 0, 1 of 1 layers here, 128 bytes raw in all, not signed>"
    )
    assert "0 of 1 layers here" in repr(p.decode(p.head_of(PACKET)))
