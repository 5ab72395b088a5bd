from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfd.core.certificates import Genesis, seal_genesis, walker_id
from mfd.core.custody import PLAN_DOMAIN, Role, Version, Walker, open_identity
from mfd.core.effects import Store
from mfd.core.events import Stored
from mfd.net import injection
from mfd.net.injection import InjectionError, InjectionReader, pack_injection, pack_model
from mfd.net.keys import KeyPair, verify
from mfd.net.store import DiskStore
from mfd.packet.chunks import Encoding
from mfd.packet.objects import object_digest
from mfd.packet.packet import Packet, decode, encode
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.signing import seal

ANN = KeyPair.from_seed(b"a" * 32)
ARRAYS = {
    "body": {"w": np.arange(400_000, dtype=np.float32)},
    "head": {"b": np.ones(10, np.float32)},
}


def records(**changes: Any) -> tuple[bytes, bytes]:
    plan = Plan({"zoo": "mlp"}, ("digits/train",), ANN.public_key, **changes)
    plan_record = seal(PLAN_DOMAIN, encode_plan(plan), ANN)
    digest = object_digest(plan_record)
    genesis = Genesis(ANN.public_key, b"n" * 16, bytes(32), digest, 2, "manual")
    return seal_genesis(genesis, ANN), plan_record


def packet(genesis: bytes, plan: bytes, **changes: Any) -> Packet:
    options = {"walker": walker_id(genesis), "plan": object_digest(plan), "signer": ANN}
    return Packet.from_tensors(ARRAYS, **{**options, **changes})


def file_of(encoding: Encoding = Encoding.PLANES, **changes: Any) -> bytes:
    genesis, plan = records()
    return b"".join(
        pack_injection(genesis, plan, encode(packet(genesis, plan, **changes), encoding))
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    made = DiskStore(tmp_path, floor_bytes=0)
    yield made
    made.close()


async def pieces(data: bytes, step: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), step):
        yield data[at : at + step]


async def at_once(call: Callable[[], Any]) -> Any:
    return call()


async def take(data: bytes, store: DiskStore, step: int = 65_536) -> injection.Injection:
    return await injection.receive(pieces(data, step), store, at_once)


@pytest.mark.parametrize(("step", "encoding"), [(1_000, Encoding.PLANES), (1 << 30, Encoding.RAW)])
async def test_a_walker_goes_in_and_its_model_comes_out(
    store: DiskStore, step: int, encoding: Encoding
) -> None:
    genesis, plan = records()
    sent = packet(genesis, plan)
    got = await take(file_of(encoding), store, step)
    assert got.walker == walker_id(genesis).hex()
    assert (got.event.genesis, got.event.plan) == (genesis, plan)
    assert (got.event.manifest, got.event.signature) == (sent.manifest_bytes, sent.signature)
    assert set(got.fresh) == set(sent.objects)

    walker = Walker(open_identity(genesis, plan, verify), Role.OWN)
    walker.version = Version.open(got.event.manifest, got.event.signature, verify)
    done = store.perform(Store(1, objects=tuple(sent.objects), put=(walker.row(),)))
    assert done == Stored(1)
    out = decode(b"".join(pack_model(got.walker[:6], store)), verify)
    out.check()
    assert out.manifest_bytes == sent.manifest_bytes
    assert np.array_equal(out.tensors()["body"]["w"].array(), ARRAYS["body"]["w"])
    with pytest.raises(InjectionError, match="no walker with an id that begins with 'zz'"):
        pack_model("zz", store)
    assert (await take(file_of(), store)).fresh == ()
    assert not list(store.incoming.iterdir())


async def test_every_cut_and_every_extra_byte_is_refused(store: DiskStore) -> None:
    """Rules: L-25."""
    data = file_of()
    for size in [0, 3, 19, 20, 100, 400, len(data) - 1]:
        with pytest.raises(InjectionError, match="ends too early"):
            await take(data[:size], store)
    with pytest.raises(InjectionError, match="longer than its head"):
        await take(data + b"x", store)
    assert not list(store.incoming.iterdir())


async def test_damage_is_refused_wherever_it_is(store: DiskStore) -> None:
    """Rules: L-26."""
    data = file_of(Encoding.RAW)
    for at in [0, 5, 30, 130, 260, 460, 800, len(data) // 2, len(data) - 1]:
        broken = bytearray(data)
        broken[at] ^= 0x55
        with pytest.raises(InjectionError):
            await take(bytes(broken), store)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"signer": None}, "signature"),
        ({"walker": b"w" * 32}, "belongs to another walker"),
    ],
)
async def test_what_does_not_belong_together_is_refused(
    store: DiskStore, changes: Any, sentence: str
) -> None:
    with pytest.raises(InjectionError, match=sentence):
        await take(file_of(**changes), store)


async def test_a_layer_that_is_missing_is_named(store: DiskStore) -> None:
    genesis, plan = records()
    whole = packet(genesis, plan)
    head = whole.manifest.layers[1].digest
    part = replace(whole, objects={head: whole.objects[head]})
    with pytest.raises(InjectionError, match="layer 'body' is missing"):
        await take(b"".join(pack_injection(genesis, plan, encode(part))), store)


@pytest.mark.parametrize(
    ("sizes", "what"),
    [
        ((0, 1, 1), "genesis"),
        ((1 << 20, 1, 1), "genesis"),
        ((1, 1 << 20, 1), "plan"),
        ((1, 1, 0), "packet"),
        ((1, 1, 1 << 63), "packet"),
    ],
)
def test_lengths_are_checked_before_anything_is_taken(
    sizes: tuple[int, int, int], what: str
) -> None:
    """Rules: L-25."""
    asked: list[int] = []
    reader = InjectionReader(io.BytesIO(), asked.append)
    with pytest.raises(InjectionError, match=f"the {what} has"):
        reader.feed(injection.HEAD.pack(b"MFDI", *sizes))
    assert asked == []


async def test_a_full_disk_is_told_at_the_head(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, floor_bytes=1 << 60)
    with pytest.raises(InjectionError, match="disk is nearly full"):
        await take(file_of()[:20], store)
    store.close()
