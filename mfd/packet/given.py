"""What callers of the codec give it: refused in one sentence where it is of another kind.

Rules of this file: TypeError and ValueError tell a caller of a mistake of its own; what is wrong
with bytes from others is a PacketError, elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from mfd.packet.limits import NAME_BYTES_MAX

__all__ = [
    "as_view",
    "check_layer_name",
    "check_link",
    "check_map",
    "check_signer",
    "check_verify",
    "name_bytes",
]


def as_view(value: Any, what: str) -> memoryview:
    """View bytes, a memoryview, an mmap or the like, read-only. Raises: TypeError."""
    try:
        return memoryview(value).cast("B").toreadonly()
    except TypeError:
        kind = type(value).__name__
    if isinstance(value, list | tuple):
        hint = 'join the parts first: b"".join(parts)'
    elif isinstance(value, str) or hasattr(value, "__fspath__"):
        hint = "read or map the file first"
    else:
        hint = "give contiguous bytes"
    raise TypeError(f"{what} is read from bytes, a memoryview or an mmap, not {kind}: {hint}")


def check_map(value: object, what: str, of: str) -> None:
    """Raise TypeError where a caller gives something else for a map."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} is a map of {of}, not a {type(value).__name__}")


def name_bytes(name: object, what: str) -> bytes:
    """Return a name as it travels. Raises: TypeError, ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a {what} is text, not {name!r}")
    try:
        key = name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} name {name!r} cannot be written as UTF-8") from None
    if not 0 < len(key) <= NAME_BYTES_MAX:
        shown = f"{name[:40]!r} has {len(key)}" if key else "'' has none"
        raise ValueError(f"{what} name {shown}: 1 to {NAME_BYTES_MAX} bytes are allowed")
    return key


def check_signer(signer: object) -> None:
    """Raise TypeError where this cannot sign."""
    if not callable(getattr(signer, "sign", None)) or not hasattr(signer, "public_key"):
        kind = type(signer).__name__
        raise TypeError(f"a signer has `public_key` and `sign`, such as a KeyPair; {kind} has not")


def check_verify(verify: object) -> None:
    """Raise TypeError where this is neither a function that checks signatures nor None."""
    if verify is not None and not callable(verify):
        kind = type(verify).__name__
        raise TypeError(f"`verify` is a function such as mfd.net.keys.verify, not a {kind}")


def check_layer_name(name: str) -> str:
    """Return the name. Raises: TypeError, ValueError."""
    name_bytes(name, "layer")
    return name


def check_link(link_bps: object) -> None:
    """Raise TypeError or ValueError where this is no speed of a link."""
    if isinstance(link_bps, bool) or not isinstance(link_bps, Real):
        raise TypeError(f"link_bps is a number of bits per second, such as 100e6, not {link_bps!r}")
    if not float(link_bps) > 0:
        raise ValueError(
            f"link_bps is {link_bps}: nothing to choose for such a link; give 100e6 or so"
        )
