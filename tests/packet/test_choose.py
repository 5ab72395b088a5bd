from __future__ import annotations

import numpy as np
import pytest

from mfd.packet import Encoding, encode_chunk, pack_layer
from mfd.packet.choosing import NATIVE, NUMPY, choose

DICE = np.random.default_rng(3)
OLD = DICE.normal(0, 0.02, 600_000).astype("<f4")
NEW = (OLD + DICE.normal(0, 2e-5, OLD.size)).astype("<f4")
BASE = pack_layer({"weight": OLD}).tobytes()
LAYER = pack_layer({"weight": NEW})
RAW, PLANES, DELTA = Encoding.RAW, Encoding.PLANES, Encoding.DELTA


@pytest.mark.parametrize(
    ("link_bps", "base", "best"),
    [(1e6, BASE, DELTA), (1e9, BASE, DELTA), (1e9, None, PLANES), (100e9, BASE, RAW)],
)
def test_the_link_decides(link_bps: float, base: bytes | None, best: Encoding) -> None:
    """What costs more to encode than it saves on the way is not done."""
    choice = choose(*LAYER.parts, link_bps=link_bps, base=base, speeds=NATIVE)
    assert choice.encoding is best
    assert choice.why.startswith(best.name.lower() + ", ")
    assert choice.seconds[best] == min(choice.seconds.values())


def test_a_slow_machine_sends_more() -> None:
    """At 2 Gbit/s the C kernel's delta pays, numpy's does not."""
    picked = [choose(LAYER.tobytes(), link_bps=2e9, base=BASE, speeds=s) for s in (NATIVE, NUMPY)]
    assert [choice.encoding for choice in picked] == [DELTA, RAW]


def test_a_strange_base_is_not_used() -> None:
    other = pack_layer({"weight": OLD[::-1]}).tobytes()
    assert choose(*LAYER.parts, link_bps=1e6, base=other).encoding is PLANES


def test_sizes_are_near_the_real_ones() -> None:
    choice = choose(*LAYER.parts, link_bps=1e6, base=BASE)
    raw = LAYER.tobytes()
    for encoding in (RAW, PLANES, DELTA):
        real = sum(
            len(
                encode_chunk(
                    raw[at : at + (1 << 20)],
                    item_bytes=4,
                    encoding=encoding,
                    base=BASE[at : at + (1 << 20)],
                )[1]
            )
            for at in range(0, len(raw), 1 << 20)
        )
        assert choice.encoded_bytes[encoding] == pytest.approx(real, rel=0.02)


def test_the_sum_is_that_of_its_terms() -> None:
    """Every bit of fp32's exponent plane is coded, a quarter of the bytes: checked by hand."""
    choice = choose(*LAYER.parts, link_bps=8e6, speeds=NATIVE)
    total, share = LAYER.raw_bytes, 0.25
    coder = share * total / NATIVE.code + share * total / NATIVE.decode
    kernel = total / NATIVE.split + total / NATIVE.merge
    sent = choice.encoded_bytes[PLANES] / 1e6
    assert choice.seconds[PLANES] == pytest.approx(sent + coder + kernel, rel=1e-9)
    assert choice.seconds[RAW] == total / 1e6


def test_the_reason_is_one_sentence() -> None:
    choice = choose(DICE.bytes(100), link_bps=100e6, speeds=NATIVE)
    assert choice.encoding is RAW
    assert choice.why == (
        "raw, 100% of the bytes: 0.008 ms to encode, send at 100 Mbit/s and decode, against "
        "0.00802 ms planes, no base for a delta"
    )


def test_no_layer_and_no_items_are_no_obstacle() -> None:
    assert choose(b"a" * 99, b"", link_bps=1).encoding is PLANES
    assert choose(b"ab", link_bps=1, base=b"").encoding is RAW


@pytest.mark.parametrize(("raw", "link_bps"), [(b"", 1.0), (b"a", 0.0), (b"a", float("nan"))])
def test_nothing_to_choose(raw: bytes, link_bps: float) -> None:
    with pytest.raises(ValueError, match="nothing to choose"):
        choose(raw, link_bps=link_bps)
