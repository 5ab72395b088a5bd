"""Write the known answers of packet.md, section 14: `python spec/vectors/make_commit.py`.

One JSON file an answer in commit/: `way`, `one_in` (top-k), `dtype`, and in hex `tensor`, `base`
and `residual` where there are any; then `committed` and the new residual, `left`, or `refused`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mfd.packet import Tensor, Way, commit

COUNT = 70  # a block and a part of one
BAD = {"nan": 0x7FC00000, "inf": 0x7F800000, "largest": 0x7F7FFFFF}


def numbers(seed: int, power: int) -> np.ndarray[Any, Any]:
    """Odd numbers of 24 bits around 2^power, with zeros, a tie, and small ones."""
    state, out = seed, []
    for i in range(COUNT):
        state = (state * 1_103_515_245 + 12_345) % 2**31
        size = (state >> 7 | 1) * 2.0 ** (power - 24 - i % 5)
        out.append(-size if state & 64 else size)
    tie = (2 + 2.0**-7) * 2.0 ** (power - 2)
    out[3:9] = [0.0, -0.0, 2.0**power, tie, 2.0**-149, -(2.0**-130)]
    return np.array(out, "<f4")


def cast(values: np.ndarray[Any, Any], dtype: str) -> Tensor:
    """Return the values as a tensor of any of the float types."""
    if dtype == "bf16":
        whole = (values.view("<u4") >> 16).astype("<u2")
        return Tensor(dtype, (COUNT,), whole.view("u1").data)
    return Tensor.of(values.astype("<f2") if dtype == "f16" else values)


def answer(about: str, way: Way, tensor: Tensor, **more: Any) -> dict[str, Any]:
    """Return the content of one file."""
    content: dict[str, Any] = {"about": about, "way": way.value, "dtype": tensor.dtype}
    if way is Way.TOP_K:
        content["one_in"] = more["one_in"]
    content["tensor"] = tensor.data.hex()
    for name in ("base", "residual"):
        if name in more:
            content[name] = more[name].tobytes().hex()
            more[name] = {"w": more[name]}
    try:
        done = commit({"w": tensor}, way, **more)
    except ValueError:
        return {**content, "refused": True}
    committed, left = done.tensors["w"].data.hex(), done.residual["w"].tobytes().hex()
    return {**content, "committed": committed, "left": left}


def answers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the content of every file."""
    for way in Way:
        dtypes = [dtype for dtype in ("f32", "f16", "bf16") if way.commits(dtype)]
        more: dict[str, Any] = {"one_in": 9} if way is Way.TOP_K else {}
        for dtype in dtypes:
            tensor = cast(numbers(1, 0), dtype)
            name = f"{way}_{dtype}".replace("-", "_")
            if way.needs_base:
                more["base"] = numbers(2, 0)
            yield name, answer("numbers near 1", way, tensor, **more)
            left = numbers(3, -9)
            yield f"{name}_fed", answer("a residual", way, tensor, **more, residual=left)
            if way in (Way.INT8, Way.INT4):
                tie = numbers(1, 0)
                tie[20] = 127 * (1 + 2.0**-8) if way is Way.INT8 else 7 * (1 + 2.0**-5)
                yield f"{name}_tie", answer("a scale between two", way, cast(tie, dtype))
            small = cast(numbers(4, -18 if dtype == "f16" else -126), dtype)
            if way.needs_base:
                more["base"] = np.zeros(COUNT, "<f4")
            yield f"{name}_small", answer("numbers near the smallest", way, small, **more)
            if dtype == "f16":
                left = numbers(3, -26)
                about = "a residual finer than the type"
                yield f"{name}_fine", answer(about, way, small, **more, residual=left)
        if way.needs_base:
            more["base"] = numbers(5, 3)
            near = cast(more["base"] + numbers(6, -16), "f32")
            yield f"{way}_near".replace("-", "_"), answer("a small change", way, near, **more)
        for word, bits in BAD.items():
            poor = numbers(7, 0)
            poor[66] = np.array([bits], "<u4").view("<f4")[0]
            if way.needs_base:
                more["base"] = -poor
            name = f"{way}_{word}".replace("-", "_")
            yield name, answer(f"{word} among numbers", way, cast(poor, "f32"), **more)


def main() -> None:
    """Write all files beside this one."""
    folder = Path(__file__).parent / "commit"
    folder.mkdir(exist_ok=True)
    for name, content in answers():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
