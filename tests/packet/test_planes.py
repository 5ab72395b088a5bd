"""Both kernels, numpy and C, in one run."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mfd.packet import planes
from mfd.packet.planes import Code, merge, split
from tests.packet import kernels

WIDTHS = st.sampled_from([1, 2, 4, 8])
BOTH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
DICE = np.random.default_rng(1)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return kernels.kernel(tmp_path_factory.mktemp("kernel"))


@pytest.fixture(params=["numpy", "native"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    used = request.getfixturevalue("kernel") if request.param == "native" else None
    monkeypatch.setattr(planes, "native", used)


@pytest.mark.usefixtures("either")
def test_planes_are_bytes_of_rotated_elements() -> None:
    """Rules: P-42"""
    got = split(bytes.fromhex("0000803f 01000080"), 4)
    assert [plane.tobytes().hex() for plane in got] == ["0003", "0000", "0000", "7f00"]
    assert [plane.tobytes() for plane in split(b"abc", 1)] == [b"abc"]


@pytest.mark.usefixtures("either")
def test_planes_of_differences_are_not_rotated() -> None:
    """Rules: P-45, P-47"""
    new, old = bytes.fromhex("0100 ffff 0180"), bytes.fromhex("0000 0000 0180")
    got = split(new, 2, code=Code.INTEGERS, base=old)
    assert [plane.tobytes().hex() for plane in got] == ["020100", "000000"]


@BOTH
@given(st.binary(max_size=300), WIDTHS, st.sampled_from(Code), st.randoms())
def test_both_kernels_agree(
    kernel: ModuleType, raw: bytes, width: int, code: Code, dice: object
) -> None:
    raw = raw[: len(raw) // width * width]
    base = None if code is Code.ROTATED else raw[::-1]
    found = []
    for used in (None, kernel):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(planes, "native", used)
            got = split(raw, width, code=code, base=base)
            out = np.zeros(len(raw), np.uint8)
            merge(got, out.data, code=code, base=base)
            assert out.tobytes() == raw
            found.append([plane.tobytes() for plane in got])
    assert found[0] == found[1]


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("code", Code)
def test_both_kernels_agree_on_whole_chunks(kernel: ModuleType, width: int, code: Code) -> None:
    """Runs of the kernel end inside the chunk, and nothing is aligned."""
    size = 1_000_003 * 8
    raw = DICE.bytes(size // 8 // width * width + 1)[1:]
    base = None if code is Code.ROTATED else DICE.bytes(len(raw))
    found = []
    for used in (None, kernel):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(planes, "native", used)
            got = split(memoryview(raw), width, code=code, base=base)
            room = np.zeros(len(raw) + 1, np.uint8)
            merge(got, room.data[1:], code=code, base=base)
            assert room[1:].tobytes() == raw
            found.append(got)
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
