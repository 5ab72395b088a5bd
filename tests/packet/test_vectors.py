"""The vectors beside the specification, read by both readers."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from mfd.packet import (
    Fault,
    PacketError,
    decode,
    decode_chunk,
    decode_envelope,
    decode_manifest,
    decode_piece,
    decode_plan,
    object_digest,
    open_sealed,
    unpack_layer,
    version_of,
)
from tests.packet import reference
from tests.packet.keys import verify_ed25519

FOLDER = Path(__file__).parents[2] / "spec" / "vectors"


def load(kind: str) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in (FOLDER / kind).glob("*.json")}


VALID, INVALID = load("valid"), load("invalid")


def body_of(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["hex"]) + bytes(vector["args"].get("zeros", 0))


def read(kind: str, body: bytes, args: dict[str, Any]) -> Any:
    match kind:
        case "layer":
            return {
                n: [t.dtype, list(t.shape), t.data.hex()] for n, t in unpack_layer(body).items()
            }
        case "digest":
            return object_digest(bytes(i % 251 for i in range(args["raw_bytes"]))).hex()
        case "manifest":
            manifest = decode_manifest(body)
            return {"version": version_of(body).hex(), "claims": dict(manifest.claims)}
        case "plan":
            plan = decode_plan(body)
            return {"names": list(plan.names), "recipe": plan.recipe, "laps": plan.laps}
        case "envelope":
            return decode_envelope(body)
        case "record":
            key, inner = open_sealed(args["domain"], body, verify_ed25519, args["limit"])
            return {"key": key.hex(), "body": inner.hex()}
        case "piece":
            piece = decode_piece(body)
            return {
                "kind": int(piece.kind),
                "object": piece.object.hex(),
                "raw_bytes": piece.raw_bytes,
                "index": piece.index,
                "encoding": piece.encoding,
                "base": piece.base.hex() if piece.base else None,
                "body": piece.body.hex(),
            }
        case "chunk":
            base = bytes.fromhex(args["base"]) if "base" in args else None
            raw = decode_chunk(args["encoding"], body, raw_bytes=args["raw_bytes"], base=base)
            return bytes(raw).hex()
        case _:
            return read_packet(body, args)


def read_packet(body: bytes, args: dict[str, Any]) -> Any:
    held = {bytes.fromhex(k): bytes.fromhex(v) for k, v in args.get("held", {}).items()}
    packet = decode(body, verify_ed25519, held=held)
    packet.check()
    layer = packet.layer(args.get("layer", 0))
    return {
        "version": version_of(packet.manifest_bytes).hex(),
        "layer": {n: [t.dtype, list(t.shape), t.data.hex()] for n, t in layer.items()},
        "destination": packet.envelope.destination,
    }


def read_again(kind: str, body: bytes, args: dict[str, Any]) -> Any:
    match kind:
        case "layer":
            return reference.layer(body)
        case "digest":
            return reference.digest(bytes(i % 251 for i in range(args["raw_bytes"]))).hex()
        case "chunk":
            base = bytes.fromhex(args.get("base", ""))
            return reference.chunk(args["encoding"], body, args["raw_bytes"], base).hex()
        case "packet":
            held = {bytes.fromhex(k): bytes.fromhex(v) for k, v in args.get("held", {}).items()}
            envelope, manifest, _, objects = reference.packet(body, held)
            manifest_bytes = decode(body, held=held).manifest_bytes
            layer = reference.layer(objects[manifest[8][0][2]])
            version = reference.digest(manifest_bytes).hex()
            return {"version": version, "layer": layer, "destination": envelope[0]}
        case _:
            return None


@pytest.mark.parametrize("name", sorted(VALID))
def test_valid(name: str) -> None:
    """Rules: P-01, P-04, P-14, P-26, P-80, P-81, P-83, P-84, P-91"""
    vector = VALID[name]
    assert read(vector["kind"], body_of(vector), vector["args"]) == vector["value"]


@pytest.mark.parametrize(
    "name", sorted(n for n in VALID if VALID[n]["kind"] in "layer digest chunk packet")
)
def test_a_second_reader_agrees(name: str) -> None:
    vector = VALID[name]
    assert read_again(vector["kind"], body_of(vector), vector["args"]) == vector["value"]


@pytest.mark.parametrize("name", sorted(INVALID))
def test_invalid(name: str) -> None:
    """Rules: P-02, P-03, P-05, P-10, P-11, P-13, P-15, P-20, P-21, P-22, P-23, P-24, P-25,
    P-30, P-31, P-40, P-41, P-42, P-43, P-44, P-45, P-48, P-49, P-50, P-51, P-52,
    P-53, P-54, P-60, P-61, P-62, P-63, P-80, P-81, P-82, P-83, P-84, P-90, P-91
    """
    vector = INVALID[name]
    with pytest.raises(PacketError) as caught:
        read(vector["kind"], body_of(vector), vector["args"])
    assert caught.value.fault is Fault[vector["fault"]]


def test_every_fault_has_a_vector() -> None:
    assert {vector["fault"] for vector in INVALID.values()} == {fault.name for fault in Fault}


def test_the_specification_lists_the_faults() -> None:
    text = (FOLDER.parent / "packet.md").read_text()
    for fault in Fault:
        assert f"| {fault.name} | {fault.value} |" in text


def test_the_writers_give_these_bytes_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    made = {
        **dict(importlib.import_module("make").vectors()),
        **dict(importlib.import_module("make_forms").vectors()),
    }
    assert made.keys() == {
        f"{kind}/{name}.json"
        for kind, found in (("valid", VALID), ("invalid", INVALID))
        for name in found
    }
    for path, content in made.items():
        assert json.loads(json.dumps(content)) == json.loads((FOLDER / path).read_text()), path
