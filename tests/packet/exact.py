"""A second committer, written from the text of spec/packet.md, section 14: exact fractions, slow.

It shares no code with mfd, nor does it use floating point but to read and write its bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TypeVar

T = TypeVar("T")

WIDTH = {"f16": 2, "bf16": 2, "f32": 4}
FORM = {"f16": (11, -24, 16), "bf16": (8, -133, 128), "f32": (24, -149, 128)}  # bits, least, top


def blocks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for at in range(0, len(items), 64):
        yield items[at : at + 64]


def pow2(exponent: int) -> Fraction:
    return Fraction(2) ** exponent


def exponent_of(value: Fraction) -> int:
    """The e with 2^e <= |value| < 2^(e + 1)."""
    value = abs(value)
    e = value.numerator.bit_length() - value.denominator.bit_length()
    return e if pow2(e) <= value else e - 1


def rounded(value: Fraction, form: str = "f32") -> Fraction:
    """[x]: to the nearest, half to even. ArithmeticError where it does not fit."""
    if value == 0:
        return value
    bits, least, top = FORM[form]
    quantum = pow2(max(exponent_of(value) - bits + 1, least))
    value = round(value / quantum) * quantum  # Fraction rounds half to even
    if abs(value) >= pow2(top):
        raise ArithmeticError
    return value


def cut(value: Fraction, bits: int) -> Fraction:
    quantum = pow2(exponent_of(value) - bits + 1)
    return round(value / quantum) * quantum


def read(data: bytes, dtype: str) -> list[tuple[Fraction, bool]]:
    """Values and whether the sign bit is set. ArithmeticError for inf and NaN."""
    bits, least, _ = FORM[dtype]
    width = WIDTH[dtype]
    out = []
    for at in range(0, len(data), width):
        whole = int.from_bytes(data[at : at + width], "little")
        negative = whole >> (8 * width - 1) == 1
        whole &= (1 << 8 * width - 1) - 1
        power, fraction = whole >> (bits - 1), whole & ((1 << bits - 1) - 1)
        if power == (1 << 8 * width - bits) - 1:
            raise ArithmeticError
        value = Fraction(fraction + ((1 << bits - 1) if power else 0)) * pow2(
            least + max(power, 1) - 1
        )
        out.append((-value if negative else value, negative))
    return out


def write(values: list[tuple[Fraction, bool]], dtype: str) -> bytes:
    bits, least, _ = FORM[dtype]
    width = WIDTH[dtype]
    out = b""
    for value, negative in values:
        assert rounded(value, dtype) == value
        size = abs(value)
        if size < pow2(least + bits - 1):
            whole = int(size / pow2(least))
        else:
            e = exponent_of(size)
            fraction = int(size / pow2(e - bits + 1)) - (1 << bits - 1)
            whole = (e - bits + 1 - least + 1 << bits - 1) + fraction
        whole |= (1 << 8 * width - 1) if negative else 0
        out += whole.to_bytes(width, "little")
    return out


def signed(value: Fraction, like: bool = False) -> tuple[Fraction, bool]:
    """A value with its sign bit; that of a zero is told by `like`."""
    return value, value < 0 if value else like


def total(one: tuple[Fraction, bool], other: tuple[Fraction, bool]) -> tuple[Fraction, bool]:
    """[a + b]; a zero is negative where both are."""
    return signed(rounded(one[0] + other[0]), one[1] and other[1])


def commit(
    data: bytes,
    dtype: str,
    way: str,
    *,
    base: bytes = b"",
    residual: bytes = b"",
    one_in: int = 64,
) -> tuple[bytes, list[Fraction]]:
    """The committed bytes and the new residual, which is exact here."""
    y = read(data, dtype)
    if residual:
        y = [total(one, other) for one, other in zip(y, read(residual, "f32"), strict=True)]
    b = read(base, dtype) if base else []
    if way in ("bf16", "fp16"):
        form = {"fp16": "f16"}.get(way, way)
        c = [signed(rounded(value, form), negative) for value, negative in y]
    elif way == "top-k":
        c = largest(y, b, one_in)
    elif base:
        pairs = list(zip(y, b, strict=True))
        c = [found for block in blocks(pairs) for found in delta(block, way)]
    else:
        c = [found for block in blocks(y) for found in quantise(block, dtype, way)]
    c = [signed(rounded(value, dtype), negative) for value, negative in c]
    return write(c, dtype), [one[0] - other[0] for one, other in zip(y, c, strict=True)]


def scale_of(t: Fraction, dtype: str, way: str) -> Fraction:
    if way.endswith("int4"):
        return cut(t, 5)
    if dtype == "f32":
        return cut(t, 8)
    e = exponent_of(t)
    return pow2(e) if pow2(e) == t else pow2(e + 1)


def quantise(
    y: Sequence[tuple[Fraction, bool]], dtype: str, way: str
) -> list[tuple[Fraction, bool]]:
    levels = 127 if way == "int8" else 7
    least = {"int8": -24, "int4": -20}[way] if dtype == "f16" else -126
    t = max(rounded(max(abs(v) for v, _ in y) / levels), pow2(least))
    s = scale_of(t, dtype, way)
    return [signed(rounded(round(rounded(v / s)) * s)) for v, _ in y]


def delta(
    block: Sequence[tuple[tuple[Fraction, bool], tuple[Fraction, bool]]], way: str
) -> list[tuple[Fraction, bool]]:
    d = [rounded(y[0] - b[0]) for y, b in block]
    floor = rounded(max(abs(b[0]) for _, b in block) * pow2(-19))
    if way == "delta-sign":
        sums = [abs(v) for v in d] + [Fraction(0)] * (64 - len(d))
        while len(sums) > 1:
            half = len(sums) // 2
            sums = [rounded(sums[i] + sums[half + i]) for i in range(half)]
        a = rounded(rounded(sums[0] / len(d)) * Fraction(3, 2))
        s = pow2(exponent_of(a)) if a else a
        if s < max(floor, pow2(-125)):
            s = Fraction(0)
        return [total(b, signed(s if v >= 0 else -s)) for v, (_, b) in zip(d, block, strict=True)]
    levels = 127 if way == "delta-int8" else 7
    t = max(rounded(max(abs(v) for v in d) / levels), floor, pow2(-126))
    s = scale_of(t, "f32", way)
    steps = [signed(rounded(round(rounded(v / s)) * s)) for v in d]
    return [total(b, step) for step, (_, b) in zip(steps, block, strict=True)]


def largest(
    y: list[tuple[Fraction, bool]], b: list[tuple[Fraction, bool]], one_in: int
) -> list[tuple[Fraction, bool]]:
    d = [rounded(one[0] - other[0]) for one, other in zip(y, b, strict=True)]
    order = sorted(range(len(d)), key=lambda i: (-abs(d[i]), i))
    kept = {i for i in order[: -(-len(d) // one_in)] if d[i]}
    return [y[i] if i in kept else b[i] for i in range(len(d))]
