"""Properties that hypothesis searches and shrinks: any bytes, and any value that can travel."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfd.packet import (
    CarriedObject,
    Encoding,
    Packet,
    Tensor,
    decode,
    encode,
    pack_layer,
    read_safetensors,
    unpack_layer,
    write_safetensors,
)
from tests.fuzz.corpus import Corpus, make_corpus
from tests.fuzz.draw import alter
from tests.fuzz.mutate import damage
from tests.fuzz.targets import TARGETS, Target
from tests.packet.keys import HashSigner, verify_hash
from tests.packet.values import LAYERS, NAMES

settings.register_profile("mfd", derandomize=True, deadline=None)
settings.load_profile("mfd")

CODEC = [target for target in TARGETS if not target.name.startswith("cli")]


@cache
def corpus() -> Corpus:
    return make_corpus(7)


@pytest.mark.parametrize("target", CODEC, ids=lambda target: target.name)
@given(data=st.data())
@settings(max_examples=60)
def test_any_bytes_give_a_value_or_an_error_of_the_list(
    target: Target, data: st.DataObject
) -> None:
    """Rules: P-70"""
    with suppress(*target.errors):
        target.run(data.draw(st.binary(max_size=300)))


@pytest.mark.parametrize("target", CODEC, ids=lambda target: target.name)
@given(data=st.data())
@settings(max_examples=60)
def test_so_does_a_sample_changed(target: Target, data: st.DataObject) -> None:
    """Rules: P-70"""
    sample = data.draw(st.sampled_from(corpus().shelf(target.kind)))
    rng = Random(data.draw(st.integers(0, 1 << 40)))
    made = alter(rng, corpus(), target.kind, sample)
    with suppress(*target.errors):
        target.run(damage(rng, made, sample.body) if data.draw(st.booleans()) else made)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return {n: (t.dtype, t.shape, bytes(t.data)) for n, t in first.items()} == {
        n: (t.dtype, t.shape, bytes(t.data)) for n, t in second.items()
    }


@given(st.dictionaries(NAMES, LAYERS, min_size=1, max_size=3), st.sampled_from(Encoding))
def test_a_packet_survives_the_journey(layers: dict[str, Any], encoding: Encoding) -> None:
    signer = HashSigner("trainer")
    sent = Packet.from_tensors(layers, signer=signer, claims={"loss": 0.5})
    try:
        body = b"".join(encode(sent, encoding))
    except ValueError:  # an encoding that needs a base
        return
    packet = decode(body, verify_hash)
    packet.check()
    assert packet.manifest == sent.manifest
    found = packet.tensors()
    assert found.keys() == layers.keys()
    assert all(same(found[name], layers[name]) for name in layers)
    again = b"".join(encode(packet, encoding))
    assert decode(again, verify_hash).objects.keys() == packet.objects.keys()
    assert all(isinstance(item, CarriedObject) for item in packet.objects.values())


@given(LAYERS)
def test_a_layer_read_is_the_layer_written(layer: dict[str, Tensor]) -> None:
    assert same(unpack_layer(pack_layer(layer).tobytes()), layer)


@given(LAYERS)
def test_a_safetensors_file_survives(layer: dict[str, Tensor]) -> None:
    try:
        body = b"".join(write_safetensors(layer))
    except ValueError:  # a type or a name that the form lacks
        return
    assert same(read_safetensors(body).tensors, layer)
