"""Targets with bugs in them, each behind sound checks: a campaign over them must find every one.

Rules of this file: a bug shows in few inputs, and only in those that come past what stands before
it; `honest` has none.
"""

from __future__ import annotations

import os
import threading
from zlib import crc32

import numpy as np

from mfd.packet import (
    Fault,
    PacketError,
    decode,
    decode_chunk,
    decode_envelope,
    decode_manifest,
    decode_plan,
    read_safetensors,
    unpack_layer,
)
from tests.fuzz.forms import CHUNK_HEAD
from tests.fuzz.targets import Target

MIB = 1 << 20
KEPT: list[bytes] = []


def _rarely(data: bytes, among: int) -> bool:
    return crc32(data) % among == 0


def _index(data: bytes) -> None:
    """Behind right digests: the packet is sound, and a layer in it is not."""
    packet = decode(data, decoded_bytes_max=4 * MIB)
    packet.check()
    try:
        packet.tensors()
    except PacketError:
        _ = list(packet.objects)[len(packet.manifest.layers) + 1]


def _nan(data: bytes) -> None:
    """Behind a sound table: a number of a tensor of floats is none."""
    for tensor in unpack_layer(data).values():
        if tensor.dtype == "f32" and np.isnan(tensor.array()).any():
            raise ZeroDivisionError


def _heavy(data: bytes) -> None:
    """Takes memory for what a length tells, and gives it back."""
    if len(data) >= CHUNK_HEAD.size and CHUNK_HEAD.unpack_from(data)[3] > 1 << 22:
        np.ones(100 * MIB, np.uint8)


def _reserving(data: bytes) -> None:
    """Only asks for memory, and does not touch it."""
    encoding, _, _, raw_bytes = CHUNK_HEAD.unpack(data[: CHUNK_HEAD.size].ljust(8, b"\0"))
    if encoding < 2:
        np.empty(raw_bytes, np.uint8)


def _hanging(data: bytes) -> None:
    plan = decode_plan(data)
    while _rarely(data, 8):
        plan = decode_plan(data)
    assert plan


def _waiting(data: bytes) -> None:
    decode_plan(data)
    if _rarely(data, 8):
        threading.Event().wait()  # no time of the process passes


def _crashing(data: bytes) -> None:
    decode_envelope(data)
    if _rarely(data, 8):
        os.abort()


def _ending(data: bytes) -> None:
    decode_envelope(data)
    if _rarely(data, 8):
        os._exit(0)


def _leaking(data: bytes) -> None:
    if len(KEPT) < 30:
        KEPT.append(bytes([1]) * (12 * MIB))
    decode_manifest(data)


def _faultless(data: bytes) -> None:
    """Raises the right error, but for what it must tell."""
    try:
        decode_manifest(data)
    except PacketError as exc:
        if exc.fault is Fault.ORDER:
            bare = PacketError(Fault.ORDER)
            bare.fault = None  # type: ignore[assignment]
            raise bare from exc
        raise


def _warning(data: bytes) -> None:
    for tensor in read_safetensors(data).tensors.values():
        if tensor.dtype == "f32":
            with np.errstate(over="ignore"):
                _ = 1 / tensor.array()


def _honest(data: bytes) -> None:
    if len(data) >= CHUNK_HEAD.size:
        encoding, _, _, raw_bytes = CHUNK_HEAD.unpack_from(data)
        decode_chunk(encoding, data[CHUNK_HEAD.size :], raw_bytes=raw_bytes)


TARGETS: tuple[Target, ...] = (
    Target("index", _index, "packet"),
    Target("nan", _nan, "layer"),
    Target("heavy", _heavy, "chunk"),
    Target("reserving", _reserving, "chunk", 20),
    Target("hanging", _hanging, "plan"),
    Target("waiting", _waiting, "plan"),
    Target("crashing", _crashing, "envelope"),
    Target("ending", _ending, "envelope"),
    Target("leaking", _leaking, "manifest"),
    Target("faultless", _faultless, "manifest"),
    Target("warning", _warning, "safetensors"),
    Target("honest", _honest, "chunk", 20),
)
