from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet import Envelope, IndexEntry, PacketError, decode_envelope, encode_envelope
from tests.packet.values import DIGESTS, EXTRA, NAMES

ENTRY = IndexEntry(b"d" * 32, 1, None, 1024, 2, (1 << 20) + 1)


@given(st.none() | DIGESTS | NAMES, st.integers(0, 255), st.binary(min_size=16, max_size=16), EXTRA)
def test_round_trip(
    destination: bytes | str | None, number: int, trace: bytes, extra: dict[int, object]
) -> None:
    """Rules: P-12, P-53"""
    envelope = Envelope(destination, number, number, number, trace, (ENTRY,), extra)
    assert decode_envelope(encode_envelope(envelope)) == envelope


@pytest.mark.parametrize(
    "changes",
    [
        {"destination": b"short"},
        {"destination": ""},
        {"hop_limit": 256},
        {"traffic_class": -1},
        {"trace": b""},
        {"index": (ENTRY, ENTRY)},
        {"index": (replace(ENTRY, chunk_count=1),)},
        {"index": (replace(ENTRY, raw_bytes=0, chunk_count=0),)},
        {"index": (replace(ENTRY, base=b"short"),)},
        {"index": tuple(replace(ENTRY, digest=i.to_bytes(32, "big")) for i in range(258))},
        {"extra": {11: "x" * 5000}},
    ],
)
def test_the_writer_refuses_what_no_reader_takes(changes: dict[str, object]) -> None:
    """Rules: P-53"""
    with pytest.raises(ValueError, match="cannot travel"):
        encode_envelope(replace(Envelope(), **changes))  # type: ignore[arg-type]


@given(st.binary(max_size=100))
def test_any_bytes_give_an_error_of_the_list(body: bytes) -> None:
    """Rules: P-70"""
    with pytest.raises(PacketError):
        decode_envelope(body)
