"""Whether a version is made of the tensors that its model has; a stranger may have committed it.

Rules of this file: values are not looked at, and what an optimiser keeps beside a layer does not
count.
Source: spec/walk.md, W-48; spec/packet.md, P-06.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mfd.packet.errors import PacketError
from mfd.packet.objects import Buffer, unpack_layer
from mfd.packet.task import LayerRef, Sibling

__all__ = ["misfit"]

Read = Callable[[bytes], Buffer]
Form = dict[str, tuple[str, tuple[int, ...]]]


def misfit(own: Sequence[LayerRef], sibling: Sibling, read: Read) -> str:
    """Name the first layer whose tensors are others than those of one's own, or nothing."""
    for mine, other in zip(own, sibling.layers, strict=True):
        if mine.digest == other.digest:
            continue
        try:
            theirs = _form(read(other.digest))
        except PacketError:
            return other.name
        if theirs != _form(read(mine.digest)):
            return other.name
    return ""


def _form(content: Buffer) -> Form:
    tensors = unpack_layer(content).items()
    return {name: (t.dtype, t.shape) for name, t in tensors if not name.startswith("~")}
