"""The closed list of ways in which bytes from others can be wrong.

Source: spec/packet.md, section "Errors".
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Fault", "PacketError"]


class Fault(Enum):
    """One member per way to be wrong; the value is the sentence a user reads."""

    TRUNCATED = "the bytes end before the length they declare"
    TRAILING = "bytes are left over after the end that the header declares"
    MAGIC = "the first bytes are not those of an MFD packet"
    FORMAT = "this format version or flag is not known here"
    LIMIT = "a declared size is above the limit"
    PADDING = "padding bytes are not zero or regions are not aligned"
    MSGPACK = "a header is not the MessagePack value that the specification asks for"
    FIELD = "a header field is missing, of the wrong type or out of range"
    CRITICAL = "a critical field is not known here"
    DTYPE = "a tensor's element type is not known here"
    SHAPE = "a tensor's shape does not fit its bytes"
    ORDER = "tensors, layers or chunks are not in canonical order, or appear twice"
    DIGEST = "the content does not have the digest that names it"
    ENCODING = "a chunk's encoding is not known or its body does not decode to the declared size"
    BASE = "the base object of a delta is not at hand"
    OBJECT = "the packet names an object that it does not carry"
    SIGNATURE = "a signature does not verify"


class PacketError(ValueError):
    """Raised for any defect in received bytes; nothing else leaves a decoder.

    `fault` says what is wrong, `where` says in which part of the bytes.
    """

    def __init__(self, fault: Fault, where: str = "") -> None:
        self.fault = fault
        self.where = where
        super().__init__(f"{fault.value} ({where})" if where else fault.value)
