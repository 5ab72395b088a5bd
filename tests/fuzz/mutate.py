"""Changes to bytes and to values that know nothing of packets: flips, splices, lies, odd values.

Rules of this file: all chance comes from the `Random` handed in, so a number reproduces an input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgpack

from tests.fuzz.forms import Built

NUMBERS = (0, 1, 2, 3, 7, 15, 16, 31, 63, 64, 65, 127, 128, 255, 256, 257, 1023, 1024, 1025)
EDGES = (
    (1 << 15) - 1, 1 << 15, (1 << 16) - 1, 1 << 16, (1 << 20) - 1, 1 << 20, (1 << 20) + 1,
    (1 << 24) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 40) - 1, 1 << 40,
    (1 << 40) + 1, (1 << 41) + 64, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip
WORDS = (
    "",
    "a",
    "w",
    "f32",
    "bf16",
    "bool",
    "c128",
    "f4_e2m1fn_x2",
    "f64",
    "nan",
    "\u00e9",
    "z" * 513,
)
TOKEN = msgpack.ExtType(42, b"mfd fuzz token!!")  # stands for bytes that msgpack would not write
TOKEN_PACKED = msgpack.packb(TOKEN)
# What no writer of canonical MessagePack gives: heads that lie, forms that are too long, nests.
WEIRD = (
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdc\x04\x00",
    b"\xdc\xff\xff",
    b"\xde\x04\x00",
    b"\xda\xff\xff",
    b"\xc5\xff\xff",
    b"\xc4\xff",
    b"\xd0\x05",
    b"\xd1\x00\x05",
    b"\xd2\x00\x00\x00\x05",
    b"\xcc\x05",
    b"\xcd\x00\x05",
    b"\xce\x00\x00\x00\x05",
    b"\xcf" + bytes(7) + b"\x05",
    b"\xd3" + bytes(7) + b"\x05",
    b"\xca\x3f\x80\x00\x00",
    b"\xcb\x7f\xf8" + bytes(6),
    b"\xcb\x7f\xf0" + bytes(6),
    b"\xcb\xff\xf0" + bytes(6),
    b"\xcb\x7f\xf0" + bytes(5) + b"\x01",
    b"\xcb\x80" + bytes(7),
    b"\xd9\x01a",
    b"\xda\x00\x01a",
    b"\xdb\x00\x00\x00\x01a",
    b"\xa2\xff\xfe",
    b"\xa3\xed\xa0\x80",
    b"\xc7\x00\x05",
    b"\xd4\x01\x00",
    b"\xc7\x00\xff",
    b"\xd6\xff\x00\x00\x00\x00",
    b"\xc7\x0c\xff" + bytes(12),
    b"\xdc\x00\x01\x05",
    b"\xdd\x00\x00\x00\x01\x05",
    b"\xde\x00\x01\x05\x05",
    b"\x81\x90\x05",
    b"\x81\xc0\x05",
    b"\x81\xcb" + bytes(8) + b"\x05",
    b"\x82\xa1a\x05\xa1a\x05",
    b"\x82\xa1b\x05\xa1a\x05",
    b"\x82\x01\x05\xa1a\x05",
    b"\x81\x05\x05",
    b"\x81\xc4\x01a\x05",
    b"\x91" * 7 + b"\x90",
    b"\x91" * 9 + b"\x90",
    b"\x91" * 511 + b"\xc0",
    b"\x91" * 1100 + b"\xc0",
    b"\x81\xa1a" * 1100 + b"\xc0",
    b"\xc1",
    b"\x81\x81\xc0\xc0\xc0",
    b"\xdc\x04\x00" * 40,
    b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + bytes(7),
    b"\xc3",
    b"\xc2",
    b"\xc0",
)


def flip(rng: Random, body: bytearray) -> None:
    """Turn one bit round."""
    body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)


def poke(rng: Random, body: bytearray) -> None:
    """Write one other byte."""
    body[rng.randrange(len(body))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def overwrite(rng: Random, body: bytearray) -> None:
    """Write a number of 1 to 8 bytes over what is there."""
    size = rng.choice((1, 2, 4, 8))
    at = rng.randrange(len(body))
    body[at : at + size] = number(rng).to_bytes(8, "little")[: min(size, len(body) - at)]


def cut(rng: Random, body: bytearray) -> None:
    """Drop the end."""
    del body[rng.randrange(len(body)) :]


def remove(rng: Random, body: bytearray) -> None:
    """Drop a few bytes, or an aligned region, from the middle."""
    at = rng.randrange(len(body))
    if rng.random() < 0.3:
        at -= at % 64
    del body[at : at + rng.choice((1, 2, 4, 8, 64, 128))]


def repeat(rng: Random, body: bytearray) -> None:
    """Write a stretch twice."""
    at = rng.randrange(len(body))
    if rng.random() < 0.3:
        at -= at % 64
    stretch = body[at : at + rng.choice((1, 4, 8, 40, 64, 256))]
    body[at:at] = stretch


def insert(rng: Random, body: bytearray) -> None:
    """Put in what was not there."""
    at = rng.randrange(len(body))
    body[at:at] = rng.choice(
        (bytes(1), bytes(64), rng.randbytes(rng.choice((1, 4, 64))), *WEIRD[:6])
    )


def extend(rng: Random, body: bytearray) -> None:
    """Leave bytes over."""
    body += bytes(rng.choice((1, 8, 64, 65))) if rng.random() < 0.5 else rng.randbytes(9)


# The first seven leave the length as it is.
CHANGES: tuple[Callable[[Random, bytearray], None], ...] = (
    flip, flip, flip, poke, poke, overwrite, overwrite, cut, remove, repeat, insert, extend,
)  # fmt: skip


def damage(rng: Random, body: bytes, other: bytes) -> bytes:
    """Change bytes in one to four ways; now and then splice them with another input."""
    if rng.random() < 0.1:
        body = splice(rng, body, other)
    changed = bytearray(body)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if not changed:
            break
        rng.choice(CHANGES)(rng, changed)
    return bytes(changed)


def tweak(rng: Random, body: bytes) -> bytes:
    """Change bytes in place: as many as before, so that no length tells."""
    changed = bytearray(body)
    for _ in range(rng.choice((1, 1, 1, 2, 4)) if changed else 0):
        rng.choice(CHANGES[:7])(rng, changed)
    return bytes(changed)


def splice(rng: Random, first: bytes, second: bytes) -> bytes:
    """The beginning of one and the end of the other, at the same place or at any."""
    at = rng.randrange(len(first) + 1)
    if rng.random() < 0.5:
        return first[:at] + second[at:]
    return first[:at] + second[rng.randrange(len(second) + 1) :]


def number(rng: Random, near: int | None = None) -> int:
    """An unsigned integer that is likely to hurt."""
    if near is not None and rng.random() < 0.5:
        step = rng.choice((-1, 1, -64, 64, -near, near, 2 * near, near ^ 1 << rng.randrange(64)))
        return max(0, near + step) & (1 << 64) - 1
    return rng.choice(NUMBERS if rng.random() < 0.5 else EDGES)


def lie(rng: Random, built: Built) -> bytes:
    """Make a length tell another number, or padding tell something."""
    body = bytearray(built.body)
    pads = [(first, last) for first, last in built.pads if first < last]
    if pads and (not built.lengths or rng.random() < 0.25):
        first, last = rng.choice(pads)
        if last <= len(body):
            body[rng.randrange(first, last)] = rng.randrange(1, 256)
    elif built.lengths:
        at, size = rng.choice(built.lengths)
        if at + size <= len(body):
            was = int.from_bytes(body[at : at + size], "little")
            body[at : at + size] = number(rng, was).to_bytes(8, "little")[:size]
    return bytes(body)


def odd(rng: Random, was: Any, *, text_only: bool = False) -> Any:
    """Return another value in place of one: of the same type as a rule."""
    if rng.random() < 0.15:
        was = rng.choice((0, "", b"", [], {}, None, True, 0.5))
    match was:
        case bool() | None:
            return rng.choice((True, False, None, 0, 1))
        case int():
            made = number(rng, was if was >= 0 else None)
            return -min(made, 1 << 63) if rng.random() < 0.1 else made
        case float():
            return rng.choice((0.0, -0.0, 1e308, 5e-324, float("nan"), float("inf"), 1, "nan"))
        case str():
            return rng.choice((*WORDS, was[:-1], was + "x", was * 2))
        case bytes() if not text_only:
            return rng.choice(
                (b"", was[:-1], was + b"\0", bytes(len(was)), rng.randbytes(32), was * 2)
            )
        case list():
            return reordered(rng, was, text_only=text_only)
        case dict():
            return {
                **was,
                rng.choice((*WORDS, "b")): odd(rng, rng.choice((0, "", [])), text_only=text_only),
            }
        case _:
            return rng.choice(WORDS)


def reordered(rng: Random, was: Sequence[Any], *, text_only: bool = False) -> list[Any]:
    """The list with an entry dropped, doubled, moved, or many times over."""
    if not was:
        return rng.choice(([0], [[]], [""], [[], []], [0] * 20, nested(rng.choice((7, 8, 9, 40)))))
    if rng.random() < 0.2:
        return [*was, odd(rng, rng.choice(was), text_only=text_only)]
    if rng.random() < 0.2:
        return list(was) * rng.choice((2, 30, 300) if len(was) < 8 else (2,))
    return rearranged(rng, was)


def rearranged(rng: Random, was: Sequence[Any]) -> list[Any]:
    """The list, not empty, with an entry dropped, doubled or in another place."""
    made = list(was)
    at = rng.randrange(len(made))
    match rng.randrange(4):
        case 0:
            del made[at]
        case 1 | 2:
            made.insert(rng.randrange(len(made) + 1), made[at])
        case _:
            other = rng.randrange(len(made))
            made[at], made[other] = made[other], made[at]
    return made


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def change(rng: Random, value: Any, *, text_only: bool = False) -> Any:
    """Return the value with one thing in it changed; the value itself stays as it is.

    `text_only`: JSON has no byte strings, and no token.
    """
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        roll = rng.random()
        if roll < 0.08:
            return {k: v for k, v in value.items() if k != key}
        if roll < 0.14:
            made = {**value, rng.choice((*NUMBERS, *WORDS[1:4], 65_536)): value[key]}
            return made if text_only or rng.random() < 0.5 else in_order(made)
        if roll < 0.18:
            items = list(value.items())
            rng.shuffle(items)
            return dict(items)
        return {**value, key: change(rng, value[key], text_only=text_only)}
    if isinstance(value, list) and value and rng.random() < 0.75:
        at = rng.randrange(len(value))
        return [*value[:at], change(rng, value[at], text_only=text_only), *value[at + 1 :]]
    if not text_only and rng.random() < 0.06:
        return TOKEN
    return odd(rng, value, text_only=text_only)


def in_order(value: dict[Any, Any]) -> dict[Any, Any]:
    """The map with ascending keys, where they can be compared."""
    try:
        return {key: value[key] for key in sorted(value)}
    except TypeError:
        return value


def pack(rng: Random, value: Any) -> bytes:
    """Write MessagePack; where the token stands, something that no writer gives."""
    try:
        packed: bytes = msgpack.packb(value)
    except (ValueError, OverflowError, TypeError):
        return b"\x80"
    if TOKEN_PACKED in packed:
        packed = packed.replace(TOKEN_PACKED, rng.choice(WEIRD))
    return packed
