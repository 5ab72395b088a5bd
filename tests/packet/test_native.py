"""The C kernel itself: how it is built, turned off, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.packet import kernels


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return kernels.kernel(tmp_path_factory.mktemp("kernel"))


def test_a_machine_without_a_compiler_builds_without_it(tmp_path: Path) -> None:
    for name in ("_planes", "_huffman"):
        made, said = kernels.build(tmp_path, name, CC="/nowhere/cc")
        assert made is None
        assert name in said


def test_the_library_is_for_all_pythons(kernel: ModuleType) -> None:
    assert ".abi3." in str(kernel.__file__) or os.name == "nt"


@pytest.mark.parametrize(("value", "there"), [("0", False), ("1", True)])
def test_the_environment_turns_it_off(kernel: ModuleType, value: str, there: bool) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(str(kernel.__file__)).parent)!r})\n"
    code += "try: import _planes\nexcept ImportError as exc: print(exc)\nelse: print('loaded')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MFD_NATIVE": value},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ("loaded" if there else "turned off by MFD_NATIVE=0")


def test_without_it_the_package_works() -> None:
    code = (
        "from mfd.packet import Encoding, coder, decode_chunk, encode_chunk, planes\n"
        "import numpy as np\n"
        "raw = np.linspace(1, 2, 999, dtype='f4').tobytes(); base = bytes(len(raw))\n"
        "body = encode_chunk(raw, item_bytes=4, encoding=Encoding.DELTA, base=base)\n"
        "same = decode_chunk(*body, raw_bytes=len(raw), base=base) == raw\n"
        "print(planes.native, coder.native, same)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MFD_NATIVE": "0"},
        capture_output=True,
        text=True,
        check=True,
        cwd=kernels.ROOT,
    )
    assert done.stdout.split() == ["None", "None", "True"]


RAW, OUT = bytes(16), np.zeros(16, np.uint8)
PLANES = tuple(np.zeros(4, np.uint8) for _ in range(4))


@pytest.mark.parametrize(
    "call",
    [
        ("split", RAW, None, 3, 0, OUT),  # no such width
        ("split", RAW, None, 4, 3, OUT),  # no such code
        ("split", RAW, None, 4, -1, OUT),
        ("split", RAW, RAW, 4, 0, OUT),  # a base that is not used
        ("split", RAW, None, 4, 1, OUT),  # no base
        ("split", RAW, RAW[:-1], 4, 1, OUT),
        ("split", RAW, b"", 4, 1, OUT),
        ("split", RAW, None, 4, 0, OUT[:-1]),
        ("split", RAW[:-1], None, 4, 0, OUT[:-1]),  # 15 bytes are no elements of 4
        ("split", RAW, None, 4, 0, RAW),  # not writable
        ("split", OUT.reshape(4, 4)[:, :2], None, 4, 0, OUT[:8]),  # not contiguous
        ("split", "text", None, 4, 0, OUT),
        ("split", RAW, None, 4, 0),
        ("merge", PLANES[:3], None, 4, 0, OUT),
        ("merge", list(PLANES), None, 4, 0, OUT),
        ("merge", (*PLANES[:3], OUT), None, 4, 0, OUT),  # one of another length
        ("merge", (*PLANES[:3], None), None, 4, 0, OUT),
        ("merge", PLANES, None, 4, 0, OUT[:-1]),
        ("merge", PLANES, None, 4, 0, RAW),
        ("merge", PLANES, None, 4, 2, OUT),
        ("merge", PLANES, RAW[:-1], 4, 2, OUT),
        ("merge", PLANES, 5, 4, 2, OUT),
    ],
)
def test_what_does_not_fit_is_refused_and_let_go(kernel: ModuleType, call: Any) -> None:
    """No byte is written, and no buffer stays held by the kernel."""
    name, *args = call
    room = bytearray(16)
    buffers = [*PLANES, *(arg for arg in args if isinstance(arg, bytes | np.ndarray | tuple))]
    counts = [sys.getrefcount(buffer) for buffer in buffers]
    with pytest.raises((ValueError, TypeError, BufferError)):
        getattr(kernel, name)(*args)
    assert [sys.getrefcount(buffer) for buffer in buffers] == counts
    assert not OUT.any()
    with pytest.raises(ValueError, match="length"):
        kernel.split(RAW, None, 4, 0, memoryview(room)[:8])
    room.append(0)  # raises BufferError while a view is held


def test_many_calls_leave_nothing_behind(kernel: ModuleType) -> None:
    raw, base = bytearray(64), bytearray(64)
    planes, out = tuple(bytearray(16) for _ in range(4)), bytearray(64)
    for _ in range(100):
        kernel.split(raw, base, 4, 2, out)
        kernel.merge(planes, base, 4, 2, out)
    for buffer in (raw, base, out, *planes):
        buffer.append(0)  # raises BufferError while a view is held
