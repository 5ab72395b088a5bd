"""The C coder of planes: its frames are zstd frames, and it believes nothing."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mfd.packet import Encoding, coder, decode_chunk, encode_chunk
from tests.packet import kernels

DICE = np.random.default_rng(2)
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return kernels.kernel(tmp_path_factory.mktemp("kernel"), "_huffman")


def exponents(count: int, seed: int = 0) -> Array:
    bits = np.random.default_rng(seed).normal(0, 0.02, count).astype("<f4").view("<u4")
    return (bits >> 23).astype(np.uint8)


def geometric(count: int, share: float, top: int = 128) -> Array:
    return np.minimum(DICE.geometric(share, count), top).astype(np.uint8)


def read(kernel: ModuleType, frame: bytes, size: int) -> bytes | None:
    out = np.empty(size, np.uint8)
    return out.tobytes() if kernel.decompress(frame, out) else None


def by_zstd(frame: bytes, size: int) -> bytes | None:
    try:
        if zstandard.frame_content_size(frame) != size:
            return None
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError:
        return None


BLOCK = 128 << 10
SIZES = [400, 4_096, 65_535, 65_536, BLOCK, BLOCK + 1, BLOCK + 63, BLOCK + 64, 3 * BLOCK + 5]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["exponents", "flat", "steep", "few"])
def test_zstd_reads_it_and_so_do_we(kernel: ModuleType, size: int, kind: str) -> None:
    """Rules: P-43, P-44"""
    plane = {
        "exponents": exponents(size),
        "flat": geometric(size, 0.05),  # codes longer than 11 bits, if they were allowed
        "steep": geometric(size, 0.35),
        "few": DICE.integers(125, 129, size).astype(np.uint8),
    }[kind]
    frame = kernel.compress(plane)
    assert frame is not None
    assert by_zstd(frame, size) == plane.tobytes()
    assert read(kernel, frame, size) == plane.tobytes()
    # The order-0 bound: no code for single symbols is shorter.
    share = np.bincount(plane, minlength=256) / size
    bound = size / 8 * float(-(share[share > 0] * np.log2(share[share > 0])).sum())
    assert bound <= len(frame) < 1.03 * bound + 150


def test_a_symbol_that_the_sample_missed_is_not_lost(kernel: ModuleType) -> None:
    for strange in (0, 60, 128):
        plane = exponents(1 << 18)
        plane[200_000] = strange
        frame = kernel.compress(plane)
        assert by_zstd(frame, len(plane)) == plane.tobytes()
        assert read(kernel, frame, len(plane)) == plane.tobytes()


def test_what_is_for_others_is_left_to_them(kernel: ModuleType) -> None:
    """Noise, runs, what has symbols above 128, and what is too short."""
    noise = DICE.integers(0, 256, 70_000).astype(np.uint8)
    high = exponents(70_000)
    high[69_000] = 129
    for plane in (noise, np.repeat(noise[:999], 70), high, np.zeros(9_000, np.uint8), b"", b"abc"):
        assert kernel.compress(plane) is None


@SHARED
@given(st.integers(0, 10_000), st.sampled_from([500, 3_000, 200_000]))
def test_whatever_it_reads_zstd_reads_too(kernel: ModuleType, seed: int, size: int) -> None:
    """Frames with a few bits changed, cut, or longer: a value only where zstd has the same.

    Rules: P-44, P-70
    """
    dice = random.Random(seed)
    good = kernel.compress(exponents(size, seed % 7))
    frame = bytearray(good)
    for _ in range(dice.choice([1, 1, 2, 5])):
        near = dice.choice([60, len(frame)])
        frame[dice.randrange(min(near, len(frame)))] ^= 1 << dice.randrange(8)
    if dice.random() < 0.3:
        del frame[dice.randrange(len(frame)) :]
    if dice.random() < 0.1:
        frame += bytes(dice.randrange(1, 9))
    claimed = size if dice.random() < 0.9 else size + dice.choice([-1, 1, 64])
    got = read(kernel, bytes(frame), claimed)
    if got is not None:
        assert by_zstd(bytes(frame), claimed) == got


def test_frames_of_zstd_are_left_to_zstd(kernel: ModuleType) -> None:
    plane = exponents(100_000)
    for level in (1, 3, 19):
        frame = zstandard.ZstdCompressor(level=level).compress(plane.data)
        assert read(kernel, frame, len(plane)) in (None, plane.tobytes())
    assert not kernel.decompress(b"", np.empty(5, np.uint8))


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
def test_chunks_are_the_same_to_both(kernel: ModuleType, dtype: str) -> None:
    """What one writes the other reads, and neither is much larger.

    Rules: P-42, P-43
    """
    raw = DICE.normal(0, 0.02, (1 << 20) // int(dtype[2])).astype(dtype).tobytes()
    bodies = {}
    for writer in (None, kernel):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(coder, "native", writer)
            bodies[writer] = encode_chunk(raw, item_bytes=int(dtype[2]))
    for used, body in bodies.values():
        assert used is Encoding.PLANES
        for reader in (None, kernel):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(coder, "native", reader)
                assert bytes(decode_chunk(used, body, raw_bytes=len(raw))) == raw
    assert len(bodies[kernel][1]) < 1.002 * len(bodies[None][1])


@pytest.mark.parametrize(
    "call",
    [
        ("compress", np.zeros((1 << 20) + 1, np.uint8)),
        ("compress", "text"),
        ("compress", np.zeros((4, 4), np.uint8)[:, :2]),
        ("decompress", b"", np.zeros((1 << 20) + 1, np.uint8)),
        ("decompress", b"", b"not writable"),
        ("decompress", "text", bytearray(5)),
        ("decompress", b""),
    ],
)
def test_what_does_not_fit_is_refused(kernel: ModuleType, call: Any) -> None:
    name, *args = call
    with pytest.raises((ValueError, TypeError, BufferError)):
        getattr(kernel, name)(*args)


def test_no_buffer_stays_held(kernel: ModuleType) -> None:
    plane, out = bytearray(exponents(5_000).tobytes()), bytearray(5_000)
    for _ in range(50):
        frame = bytearray(kernel.compress(plane))
        assert kernel.decompress(frame, out)
    for buffer in (plane, out, frame):
        buffer.append(0)  # raises BufferError while a view is held
