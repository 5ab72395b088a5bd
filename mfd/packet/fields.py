"""Headers as canonical MessagePack: an integer-keyed map that has exactly one spelling.

Rules of this file: a header that decodes has the very bytes that encoding its value would give, so
a digest of a header names a value. Limits hold before memory is taken.
Source: spec/packet.md, section "Headers".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgpack

from mfd.packet.errors import Fault, PacketError
from mfd.packet.limits import DIGEST_BYTES, ITEMS_MAX, KEY_MAX, NESTING_MAX, TEXT_BYTES_MAX
from mfd.packet.tensors import Buffer

__all__ = ["INT_MAX", "Fields", "pack_header", "pack_value", "unpack_value"]

INT_MAX = (1 << 63) - 1  # the largest integer that a SQLite row and an i64 hold

T = TypeVar("T")


def pack_value(value: object) -> bytes:
    """Encode with every map's keys in ascending order.

    Raises: TypeError for what MessagePack cannot carry, ValueError for integers beyond 64 bits.
    """
    try:
        packed: bytes = msgpack.packb(_sorted(value, NESTING_MAX))
    except OverflowError as exc:
        raise ValueError(f"an integer is too large: {exc}") from exc
    return packed


PLAIN = frozenset((int, str, bytes, float, bool, type(None)))  # what has nothing inside


def _sorted(value: object, depth: int) -> object:
    if type(value) in PLAIN:
        return value
    if isinstance(value, Mapping):
        if depth == 0:
            raise ValueError(f"values nest deeper than {NESTING_MAX}")
        return {key: _sorted(value[key], depth - 1) for key in sorted(value)}
    if isinstance(value, list | tuple):
        if depth == 0:
            raise ValueError(f"values nest deeper than {NESTING_MAX}")
        return [x if type(x) in PLAIN else _sorted(x, depth - 1) for x in value]
    return value


def unpack_value(body: bytes, where: str) -> Any:
    """Decode bytes that must be in the one canonical form; keys of inner maps must be text.

    Raises: PacketError(Fault.MSGPACK) for anything else; Fault.LIMIT for values that nest too deep.
    """
    try:
        # Lists are the only thing that msgpack allocates by their declared length, and a list may
        # hold a list: ITEMS_MAX entries at each of its 1,024 levels are 8 MiB at most.
        value = msgpack.unpackb(
            body,
            strict_map_key=False,
            max_array_len=ITEMS_MAX,
            max_map_len=ITEMS_MAX,
            max_str_len=TEXT_BYTES_MAX,
            max_ext_len=0,
            ext_hook=_no_extension,
        )
    except (msgpack.StackError, RecursionError) as exc:
        raise PacketError(Fault.LIMIT, f"{where} nests too deep") from exc
    except (ValueError, TypeError, msgpack.UnpackException) as exc:
        raise PacketError(Fault.MSGPACK, where) from exc
    _check(value, NESTING_MAX, where, int)
    try:
        canonical = msgpack.packb(value) == body  # the shortest spelling, and no key twice
    except (ValueError, TypeError) as exc:  # lone surrogates
        raise PacketError(Fault.MSGPACK, where) from exc
    if not canonical:
        raise PacketError(Fault.MSGPACK, f"{where} is not in canonical form")
    return value


def _no_extension(code: int, _: bytes) -> object:
    raise ValueError(f"extension type {code}")


def _check(value: object, depth: int, where: str, key_type: type) -> None:
    """Refuse what nests too deep, and keys that do not ascend or are of another type."""
    kind = type(value)
    if kind is not dict and kind is not list:
        return
    if depth == 0:
        raise PacketError(Fault.LIMIT, f"{where} nests too deep")
    inside: Any = value
    if kind is dict:
        keys = [*inside]
        if any(type(key) is not key_type for key in keys):
            raise PacketError(Fault.MSGPACK, f"{where} has a key of a wrong type")
        if keys != sorted(keys):
            raise PacketError(Fault.MSGPACK, f"{where} is not in canonical form")
        inside = inside.values()
    for item in inside:
        kind = type(item)
        if kind is list or kind is dict:
            _check(item, depth - 1, where, str)


def pack_header(known: Mapping[int, object], extra: Mapping[int, object]) -> bytes:
    """Encode a header; `extra` holds fields that this version copies through unread.

    Raises: ValueError where an extra field is critical (even) or would overwrite a known one.
    """
    for key in extra:
        if key % 2 == 0 or key in known:
            raise ValueError(f"field {key} cannot be copied through: it is critical or known")
    return pack_value({**extra, **known})


class Fields:
    """Reads one header field by field; each read checks type and range.

    A PacketError names the header and the key. `rest` must be the last call.
    """

    def __init__(self, buffer: Buffer, *, where: str, limit: int) -> None:
        if len(buffer) > limit:
            raise PacketError(Fault.LIMIT, f"{where} of {len(buffer)} bytes, at most {limit}")
        values = unpack_value(bytes(buffer), where)
        if not isinstance(values, dict) or not all(0 <= key <= KEY_MAX for key in values):
            raise PacketError(Fault.MSGPACK, f"{where} is not a map with integer keys")
        self._where = where
        self._values: dict[int, Any] = values

    def fail(self, key: int, fault: Fault = Fault.FIELD) -> PacketError:
        """Make the error for one field."""
        return PacketError(fault, f"{self._where} field {key}")

    def any(self, key: int) -> Any:
        """Take a field that must be there."""
        if key not in self._values:
            raise self.fail(key)
        return self._values.pop(key)

    def maybe(self, key: int, default: Any) -> Any:
        """Take a field that is left out where it has its default value."""
        return self._values.pop(key, default)

    def uint(self, key: int, highest: int = INT_MAX, lowest: int = 0) -> int:
        """Take an integer in lowest..highest, both included."""
        return self.check(key, as_uint(self.any(key), highest, lowest))

    def bytes(self, key: int, size: int = DIGEST_BYTES) -> bytes:
        """Take a byte string of exactly `size` bytes."""
        return self.check(key, as_bytes(self.any(key), size))

    def text(self, key: int, most: int, least: int = 1) -> str:
        """Take a text of least..most bytes of UTF-8."""
        return self.check(key, as_text(self.any(key), most, least))

    def flag(self, key: int) -> bool:
        """Take a boolean."""
        value = self.any(key)
        return self.check(key, value if isinstance(value, bool) else None)

    def list(self, key: int, most: int, read: Callable[[Any], T | None]) -> tuple[T, ...]:
        """Take a list of at most `most` items; `read` gives None for an item that is wrong."""
        value = self.any(key)
        if not isinstance(value, list):
            raise self.fail(key)
        if len(value) > most:
            raise self.fail(key, Fault.LIMIT)
        return tuple(self.check(key, read(item)) for item in value)

    def check(self, key: int, value: T | None) -> T:
        """Refuse None, the answer of the `as_` readers to a wrong value."""
        if value is None:
            raise self.fail(key)
        return value

    def rest(self) -> dict[int, Any]:
        """Return the fields that nobody took: odd ones are copied through, even ones refused."""
        for key in self._values:
            if key % 2 == 0:
                raise self.fail(key, Fault.CRITICAL)
        return self._values


def as_uint(value: object, highest: int = INT_MAX, lowest: int = 0) -> int | None:
    """Return an integer that is in range, else None. A boolean is no integer."""
    return value if type(value) is int and lowest <= value <= highest else None


def as_bytes(value: object, size: int = DIGEST_BYTES) -> bytes | None:
    """Return a byte string of exactly `size` bytes, else None."""
    return value if isinstance(value, bytes) and len(value) == size else None


def as_text(value: object, most: int, least: int = 1) -> str | None:
    """Return a text of least..most bytes of UTF-8, else None."""
    return value if isinstance(value, str) and least <= len(value.encode()) <= most else None
