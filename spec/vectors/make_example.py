"""Write the worked example into packet.md, section 17: `python spec/vectors/make_example.py`.

A tiny packet, byte by byte. What stands in the document is made from the packet's own bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgpack
import numpy as np

from mfd.packet import Encoding, Packet, encode
from mfd.packet.heads import PREAMBLE
from mfd.packet.manifest import FIELD_NAMES

DOCUMENT = Path(__file__).parents[1] / "packet.md"
BEGIN, END = "<!-- example: made by vectors/make_example.py -->\n", "<!-- end of the example -->\n"
WIDTH = 42  # of the column of bytes
ENVELOPE = {
    0: "destination: nobody in particular",
    2: "hop limit",
    4: "traffic class",
    6: "priority",
    8: "trace id",
    10: "index: digest, encoding RAW, no base, encoded bytes, chunks, raw bytes",
}
RUN = re.compile(rb"(.)\1{7,}", re.DOTALL)

Field = tuple[bytes, str]  # bytes, what they are


def example() -> Packet:
    """Return the packet: one layer of one tensor, signed by nobody."""
    return Packet.from_tensors({"fc": {"w": np.array([1, 2, 3], np.uint8)}})


def fields(packet: Packet) -> Iterator[Field]:
    """Yield all bytes of the packet in order, each with a word on it."""
    body = b"".join(encode(packet, Encoding.RAW))
    _, _, _, first, second, signed, _ = PREAMBLE.unpack_from(body)
    yield body[:4], "magic (P-50)"
    yield body[4:6], "format 1, flags 0"
    yield body[6:8], f"envelope bytes: {first}"
    yield body[8:12], f"manifest bytes: {second}"
    yield body[12:16], f"signature bytes: {signed}, as nobody signs; zero"
    at = PREAMBLE.size
    yield from _map(body[at : at + first], "envelope", ENVELOPE)
    at += first
    names = {int(key): name for key, name in FIELD_NAMES.items()}
    yield from _map(body[at : at + second], "manifest", names)
    at += second
    yield body[at : at + -at % 64], "zeros to 64"
    at += -at % 64
    yield body[at : at + 32], "chunk table: digest of raw chunk 0 (P-60)"
    yield body[at + 32 : at + 36], "encoding RAW, zero"
    yield (
        body[at + 36 : at + 40],
        f"body bytes: {int.from_bytes(body[at + 36 : at + 40], 'little')}",
    )
    yield body[at + 40 : at + 64], "zeros to 64"
    at += 64
    table = int.from_bytes(body[at : at + 4], "little")
    yield body[at : at + 4], f"the body, a layer object (P-02): table bytes: {table}"
    yield body[at + 4 : at + 8], "zero"
    yield body[at + 8 : at + 8 + table], f"table: {msgpack.unpackb(body[at + 8 : at + 8 + table])}"
    yield body[at + 8 + table : at + 64], "zeros to 64"
    yield body[at + 64 : at + 67], "tensor w: 1, 2, 3"
    yield body[at + 67 :], "zeros to 64"


def _map(raw: bytes, what: str, names: Mapping[int, str]) -> Iterator[Field]:
    """A MessagePack map key by key."""
    values = msgpack.unpackb(raw, strict_map_key=False)
    head = msgpack.Packer().pack_map_header(len(values))
    yield head, f"{what}: MessagePack, {len(values)} fields"
    for key, value in values.items():
        yield msgpack.packb(key) + msgpack.packb(value), f"{key} {names[key]}"


def _hex(raw: bytes) -> str:
    """Two digits a byte; eight and more that are alike are counted."""
    out, at = [], 0
    for run in RUN.finditer(raw):
        out += [f"{byte:02x}" for byte in raw[at : run.start()]]
        out.append(f"{run[1][0]:02x}*{len(run[0])}")
        at = run.end()
    return " ".join([*out, *(f"{byte:02x}" for byte in raw[at:])])


def text() -> str:
    """Return the example as it stands in the document."""
    lines, at = [], 0
    for raw, what in fields(example()):
        words, row = _hex(raw).split(), ""
        rows = []
        for word in words:
            if len(row) + len(word) + 1 > WIDTH:
                rows.append(row)
                row = ""
            row += f"{' ' if row else ''}{word}"
        for number, digits in enumerate([*rows, row]):
            place, told = (str(at), what) if number == 0 else ("", "")
            lines.append(f"    {place:>4}  {digits:<{WIDTH}}  {told}".rstrip())
        at += len(raw)
    return "\n".join(lines) + "\n"


def placed(document: str) -> str:
    """Return the document with the example in its place."""
    before, rest = document.split(BEGIN)
    return before + BEGIN + "\n" + text() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    DOCUMENT.write_text(placed(DOCUMENT.read_text()))
