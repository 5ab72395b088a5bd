"""`mfd packet` on files."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfd.cli.differences import _numbers
from mfd.cli.main import main
from mfd.net.keys import KeyPair
from mfd.packet import (
    PLAN_DOMAIN,
    Encoding,
    Envelope,
    Packet,
    Plan,
    Tensor,
    decode,
    encode,
    encode_plan,
    object_digest,
    seal,
    wrap_object,
    write_safetensors,
)
from mfd.packet.tensors import TORCH_NAMES

KEYS = KeyPair.from_seed(bytes(range(32)))
PLAN = seal(PLAN_DOMAIN, encode_plan(Plan(recipe={}, names=("a",), home=KEYS.public_key)), KEYS)
ENVELOPE = Envelope(destination="digits/train", hop_limit=3, extra={777: "kept"})


def layers(seed: int = 1) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return {
        "stem": {"stem.w": (rng.standard_normal(300_000) * 0.02).astype(np.float32)},
        "body": {"body.w": np.arange(12, dtype=np.float32).reshape(3, 4), "body.n": np.array(7)},
        "head": {"head.w": rng.standard_normal(40).astype(np.float16), "head.e": np.zeros((0, 2))},
    }


def write(
    path: Path, tensors: dict[str, dict[str, Any]], *, encoding: Encoding = Encoding.PLANES
) -> bytes:
    """Write a signed packet with its plan record."""
    packet = Packet.from_tensors(
        tensors, signer=KEYS, plan=object_digest(PLAN), envelope=ENVELOPE, software="t"
    )
    record = wrap_object(PLAN)
    packet = replace(packet, objects={**packet.objects, record.digest: record})
    body = b"".join(encode(packet, encoding))
    path.write_bytes(body)
    return body


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, what was printed, what was said on stderr."""
    code = main(["packet", *map(str, words)])
    told = capsys.readouterr()
    return code, told.out, told.err


def run_json(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def content(path: Path) -> dict[str, dict[str, tuple[str, tuple[int, ...], bytes]]]:
    found = decode(path.read_bytes()).tensors()
    return {
        layer: {name: (t.dtype, t.shape, bytes(t.data)) for name, t in tensors.items()}
        for layer, tensors in found.items()
    }


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_inspect_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.mfd"
    body = write(path, layers())
    told = run_json(capsys, "inspect", path)
    assert told["signed"]
    assert [layer["name"] for layer in told["layers"]] == ["stem", "body", "head"]
    assert told["layers"][0]["encoding"] == "planes"
    said = run(capsys, "inspect", path)[1]
    assert "head" in said
    assert "signed    yes" in said
    assert not any(sign in said for sign in "[]'")  # words for people, no values of Python
    assert run(capsys, "verify", path)[0] == 0
    path.write_bytes(body[:-200] + bytes([body[-200] ^ 1]) + body[-199:])
    code, _, err = run(capsys, "verify", path)
    assert code == 1
    assert err.count("\n") == 1
    path.write_bytes(b"".join(encode(Packet.from_tensors(layers()))))
    assert run(capsys, "verify", path)[:2] == (
        0,
        f"{path}: sound; all chunks of 3 objects are good; not signed: who made it is open\n",
    )
    code, _, err = run(capsys, "verify", path, "--signed")
    assert (code, "is not signed" in err) == (1, True)
    forged = bytearray(body)
    forged[body.index(b"stem")] ^= 1  # a layer's name, which the signature covers
    path.write_bytes(forged)
    code, _, err = run(capsys, "verify", path)
    assert (code, "a signature does not verify" in err) == (1, True)


def test_a_packet_is_encoded_anew_and_stays_signed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, raw, back = (tmp_path / f"{name}.mfd" for name in ("planes", "raw", "back"))
    body = write(path, layers())
    facts = run_json(capsys, "convert", path, raw, "--encoding", "raw")
    assert facts["bytes_after"] == raw.stat().st_size > facts["bytes_before"] == len(body)
    assert raw.read_bytes() == write(tmp_path / "told.mfd", layers(), encoding=Encoding.RAW)
    code, out, _ = run(capsys, "convert", raw, back)
    assert code == 0
    assert "3 layers" in out
    assert back.read_bytes() == body
    assert run(capsys, "verify", back)[0] == 0
    code, out, _ = run(capsys, "convert", raw, back, "--encoding", "int8")
    assert code == 0
    assert "nothing went as int8: it takes only weights that are rounded to 8 bits" in out


def test_safetensors_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, foreign, back = tmp_path / "m.mfd", tmp_path / "m.safetensors", tmp_path / "n.mfd"
    small = {
        "f8_e4m3fn": Tensor("f8_e4m3fn", (3,), memoryview(b"\x01\x7f\x80")),
        "bf16": Tensor("bf16", (2,), memoryview(b"\x80\x3f\xc0\x7f")),
        "bool": np.array([True, False]),
        "c64": np.array([1 + 2j], np.complex64),
    }
    write(path, {**layers(), "small": small})
    run_json(capsys, "convert", path, foreign)
    facts = run_json(capsys, "convert", foreign, back, "--one-layer")
    assert (facts["layers"], facts["encoding"]) == (1, "planes")
    flat = {name: t for tensors in content(path).values() for name, t in tensors.items()}
    assert content(back) == {"model": flat}
    assert decode(back.read_bytes()).signature == b""
    code, _, err = run(capsys, "convert", path, back, "--one-layer")
    assert (code, err.count("\n")) == (2, 1)
    assert "a packet keeps the layers it has" in err


def test_safetensors_are_cut_into_layers_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"h.{i}.{part}" for i in range(11) for part in ("attn.w", "mlp.w")]
    names += ["wte.weight", "ln_f.weight"]
    tensors = {name: np.full(3, i, np.float32) for i, name in enumerate(names)}
    foreign, made = tmp_path / "m.safetensors", tmp_path / "m.mfd"
    foreign.write_bytes(b"".join(write_safetensors(tensors)))
    assert run_json(capsys, "convert", foreign, made)["layers"] == 13
    found = content(made)
    assert list(found) == ["first", *(f"h.{i}" for i in range(11)), "last"]
    assert {name for layer in found.values() for name in layer} == set(names)
    assert set(found["h.10"]) == {"h.10.attn.w", "h.10.mlp.w"}


def test_no_tensor_is_lost_where_layers_share_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, foreign, back = tmp_path / "m.mfd", tmp_path / "m.safetensors", tmp_path / "n.mfd"
    write(path, {"a": {"w": np.zeros(1)}, "b": {"w": np.ones(2), "v": np.ones(3)}})
    run_json(capsys, "convert", path, foreign)
    run_json(capsys, "convert", foreign, back)
    found = [tensors for layer, tensors in content(back).items() if layer in ("a", "b")]
    sizes = {name: shape for tensors in found for name, (_, shape, _) in tensors.items()}
    assert sizes == {"a.w": (1,), "b.w": (2,), "b.v": (3,)}
    write(path, {"a": {"b.w": np.zeros(1), "w": np.ones(1)}, "a.b": {"w": np.ones(2)}})
    code, _, err = run(capsys, "convert", path, foreign)
    assert code == 1
    assert "share a name" in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("convert", "m.mfd", "n.mfd", "--encoding", "plans"), 2, "did you mean 'planes'"),
        (("convert", "m.mfd", "n.safetensors", "--encoding", "raw"), 2, "is for .mfd files"),
        (("convert", "m.mfd", "n.pt"), 2, ".safetensors"),
        (("convert", "no.mfd", "n.mfd"), 1, "cannot be read"),
        (("convert", "no.safetensors", "n.mfd"), 1, "cannot be read"),
        (("convert", "bad.mfd", "n.mfd"), 1, "bad.mfd is not sound"),
        (("convert", "complex.mfd", "n.safetensors"), 1, "c128"),
        (("convert", "m.mfd", "no/n.mfd"), 1, "cannot be written"),
        (("diff", "m.mfd", "bad.mfd"), 1, "bad.mfd is not sound"),
        (("split", "m.mfd"), 2, "say how to split"),
        (("split", "m.mfd", "--by", "tensor"), 2, "by layer"),
        (("split", "m.mfd", "--by", "layer", "--chunk-bytes", "4096"), 2, "say how to split"),
        (("split", "m.mfd", "--chunk-bytes", "9"), 2, "at least 1024"),
        (("split", "m.mfd", "--by", "layer", "--out", "no/no"), 2, "no/no cannot be made"),
        (("split", "bad.mfd", "--by", "layer"), 1, "bad.mfd is not sound"),
        (("join", "m.mfd", "--out", "n.mfd"), 1, "m.mfd is no part"),
    ],
)
def test_each_error_is_one_sentence(
    words: tuple[str, ...], code: int, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = write(Path("m.mfd"), layers())
    at = len(body) // 2  # inside a body
    Path("bad.mfd").write_bytes(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])
    write(Path("complex.mfd"), {"z": {"z": np.ones(2, np.complex128)}})
    before = sorted(here.iterdir())
    found, _, err = run(capsys, *words)
    assert (found, err.count("\n")) == (code, 1), err
    assert said in err
    assert sorted(here.iterdir()) == before


def test_a_safetensors_file_that_lies_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "m.safetensors", tmp_path / "m.mfd"
    header = b'{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}'
    for body in (b"", len(header).to_bytes(8, "little") + header + bytes(8)):
        path.write_bytes(body)
        code, _, err = run(capsys, "convert", path, out)
        assert (code, err.count("\n")) == (1, 1)
        assert "is not a sound safetensors file" in err
        assert not out.exists()


def test_diff_names_what_changed_and_what_travels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = tmp_path / "a.mfd", tmp_path / "b.mfd"
    old, new = layers(), layers()
    write(a, {**old, "gone": {"g": np.ones(3)}})
    new["body"]["body.w"] = old["body"]["body.w"].copy()
    new["body"]["body.w"][1, 2] += 0.5
    new["body"]["body.w"][2, 0] -= 2
    new["body"]["body.n"] = np.array(9)
    new["head"] = {"head.w": old["head"]["head.w"].reshape(8, 5), "head.x": np.ones(1)}
    write(b, {**new, "twin": new["body"], "came": {"c": np.ones(3)}})
    told = run_json(capsys, "diff", a, b)
    found = {layer["layer"]: layer for layer in told["layers"]}
    assert {name: layer["state"] for name, layer in found.items()} == {
        "stem": "same",
        "body": "changed",
        "head": "changed",
        "twin": "only in b",
        "came": "only in b",
        "gone": "only in a",
    }
    body = {t["tensor"]: t for t in found["body"]["tensors"]}
    assert body["body.w"]["changed"] == 2
    assert body["body.w"]["elements"] == 12
    assert body["body.w"]["max_abs"] == 2
    assert (body["body.n"]["changed"], body["body.n"]["max_abs"]) == (1, None)
    assert [(t["tensor"], t["a"], t["b"], t["changed"]) for t in found["head"]["tensors"]] == [
        ("head.e", "f64 [0, 2]", None, None),
        ("head.w", "f16 [40]", "f16 [8, 5]", None),
        ("head.x", None, "f64 [1]", None),
    ]
    index = {e.digest: e.encoded_bytes for e in decode(b.read_bytes()).envelope.index}
    sizes = {r.name: index[r.digest] for r in decode(b.read_bytes()).manifest.layers}
    travel = {name: layer["travel_bytes"] for name, layer in found.items()}
    # `twin` is the object that `body` is, so it does not travel again.
    assert travel == {
        "stem": 0,
        "body": sizes["body"],
        "head": sizes["head"],
        "twin": 0,
        "came": sizes["came"],
        "gone": 0,
    }
    assert told["travel_bytes"] == sum(travel.values())
    code, out, _ = run(capsys, "diff", a, b)
    assert code == 0
    assert "2 of 12" in out
    assert "would travel" in out
    assert run_json(capsys, "diff", a, a)["travel_bytes"] == 0


def test_diff_of_packets_that_do_not_carry_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = tmp_path / "a.mfd", tmp_path / "b.mfd"
    write(a, layers(1))
    body = write(b, layers(2))
    packet = decode(body)
    kept = {packet.manifest.layers[2].digest}
    some = replace(packet, objects={d: o for d, o in packet.objects.items() if d in kept})
    b.write_bytes(b"".join(encode(some)))
    found = {layer["layer"]: layer for layer in run_json(capsys, "diff", a, b)["layers"]}
    assert found["stem"]["tensors"] is None
    assert found["stem"]["travel_bytes"] == found["stem"]["raw_bytes"] > 1_000_000
    assert found["head"]["tensors"]
    assert "not compared: stem" in run(capsys, "diff", a, b)[1]


def test_diff_tells_what_is_no_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a.mfd", tmp_path / "b.mfd"
    nan, inf = np.nan, np.inf
    write(a, {"l": {"n": np.array([nan, 1, 2]), "i": np.array([1.0]), "x": np.array([nan])}})
    write(b, {"l": {"n": np.array([nan, nan, 3]), "i": np.array([inf]), "x": np.array([nan])}})
    (layer,) = run_json(capsys, "diff", a, b)["layers"]
    told = {t["tensor"]: (t["changed"], t["max_abs"]) for t in layer["tensors"]}
    assert told == {"n": (2, "nan"), "i": (1, "inf")}


@pytest.mark.parametrize(
    "dtype", ["f8_e4m3fn", "f8_e5m2", "f8_e4m3fnuz", "f8_e5m2fnuz", "f8_e8m0fnu", "bf16", "f16"]
)
def test_every_small_float_is_the_number_that_torch_says(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    kind = getattr(torch, TORCH_NAMES[dtype], None)
    if kind is None:
        pytest.skip(f"this torch has no {dtype}")
    codes = np.arange(256 if dtype.startswith("f8") else 1 << 16).astype(
        np.uint8 if dtype.startswith("f8") else np.uint16
    )
    told = torch.from_numpy(codes.copy()).view(kind).to(torch.float32).numpy()
    found = _numbers(codes.view(np.uint8), dtype)
    assert found is not None
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, told)


def test_small_and_complex_numbers() -> None:
    two = _numbers(np.array([0x2F, 0x98], np.uint8), "f4_e2m1fn_x2")
    assert two is not None
    assert sorted(two) == [-6, -0.5, 0, 1]
    pair = _numbers(np.array([1.5, -2], "<f2").view(np.uint8), "c32")
    assert pair is not None
    assert pair.tolist() == [1.5 - 2j]
    assert _numbers(np.zeros(8, np.uint8), "i64") is None


def split(capsys: pytest.CaptureFixture[str], *words: object) -> list[Path]:
    return [Path(part["file"]) for part in run_json(capsys, "split", *words)["parts"]]


@pytest.mark.parametrize("encoding", list(Encoding)[:2])
def test_layers_are_split_and_joined_to_the_same_bytes(
    encoding: Encoding, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rules: P-55"""
    path, out = tmp_path / "m.mfd", tmp_path / "n.mfd"
    body = write(path, layers(), encoding=encoding)
    parts = split(capsys, path, "--by", "layer", "--out", tmp_path / "made")
    assert [p.name for p in parts] == [f"m.{i}-of-4.mfd" for i in (1, 2, 3, 4)]
    for part in parts:
        assert run(capsys, "verify", part)[0] == 0
        assert len(decode(part.read_bytes()).objects) == 1
    random.Random(3).shuffle(parts)
    assert run_json(capsys, "join", *parts, "--out", out)["bytes"] == len(body)
    assert out.read_bytes() == body
    code, _, err = run(capsys, "split", parts[0], "--by", "layer")
    assert code == 1
    assert "is a part itself" in err


def test_a_packet_that_carries_nothing_is_split_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "m.mfd", tmp_path / "n.mfd"
    empty = replace(decode(write(path, layers())), objects={})
    path.write_bytes(b"".join(encode(empty)))
    parts = split(capsys, path, "--by", "layer")
    assert len(parts) == 1
    run_json(capsys, "join", *parts, "--out", out)
    assert out.read_bytes() == path.read_bytes()


def test_slices_are_joined_to_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder, out = tmp_path / "m.mfd", tmp_path / "parts", tmp_path / "n.mfd"
    folder.mkdir()
    body = write(path, layers())
    parts = split(capsys, path, "--chunk-bytes", 100_000, "--out", folder)
    assert len(parts) == -(-len(body) // 100_000) > 9
    assert {p.parent for p in parts} == {folder}
    assert b"".join(p.read_bytes() for p in sorted(parts)) == body
    random.Random(3).shuffle(parts)
    code, said, _ = run(capsys, "join", *parts, "--out", out)
    assert code == 0
    assert f"from {len(parts)} parts" in said
    assert out.read_bytes() == body


@pytest.mark.parametrize("how", [("--by", "layer"), ("--chunk-bytes", "300000")])
def test_parts_that_do_not_join(
    how: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, other, out = tmp_path / "m.mfd", tmp_path / "o.mfd", tmp_path / "n.mfd"
    write(path, layers())
    write(other, layers(2))
    parts, others = split(capsys, path, *how), split(capsys, other, *how)

    def refused(files: list[Path], said: str) -> None:
        code, _, err = run(capsys, "join", *files, "--out", out)
        assert (code, err.count("\n")) == (1, 1)
        assert said in err
        assert not out.exists()

    refused(parts[:1] + parts[2:], f"1 of {len(parts)} parts are missing: 2")
    refused([*parts, others[0]], "different")
    copied = tmp_path / "copy"
    copied.mkdir()
    copy = copied / parts[0].name
    copy.write_bytes(parts[0].read_bytes())
    refused([*parts, copy], "are the same part")
    part = parts[1] if how[0] != "--by" else parts[0]
    body = part.read_bytes()
    part.write_bytes(body[:-300] + bytes([body[-300] ^ 1]) + body[-299:])
    refused(parts, "not sound" if how[0] == "--by" else "do not join to a sound packet")
    part.write_bytes(b"")
    refused(parts, "empty")


@pytest.mark.parametrize("size", [2_000, 400_000])
def test_the_damaged_slice_is_named(
    size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "m.mfd", tmp_path / "n.mfd"
    body = write(path, layers(), encoding=Encoding.RAW)
    parts = sorted(split(capsys, path, "--chunk-bytes", size))
    whole = {part: part.read_bytes() for part in parts}

    def said(**changed: bytes) -> str:
        for part, raw in whole.items():
            part.write_bytes(changed.get(part.name.rpartition(".")[2].partition("-")[0], raw))
        code, _, err = run(capsys, "join", *parts, "--out", out)
        assert (code, err.count("\n")) == (1, 1)
        assert not out.exists()
        return err

    def broken(number: int, at: int) -> dict[str, bytes]:
        part = parts[number]
        raw = bytearray(whole[part])
        raw[at] ^= 1
        return {part.name.rpartition(".")[2].partition("-")[0]: bytes(raw)}

    middle = len(parts) // 2
    err = said(**broken(middle, 1_000))
    assert str(parts[middle]) in err or _is_among(err, parts, middle)
    assert "get that part again" in err
    assert f"{parts[0]} is damaged: the headers: the first bytes are not" in said(**broken(0, 0))
    number = parts[middle].name.rpartition(".")[2].partition("-")[0]
    short = said(**{number: whole[parts[middle]][:-7]})
    assert f"{parts[middle]} is damaged: it has {size - 7} bytes and not {size}" in short
    last = parts[-1].name.rpartition(".")[2].partition("-")[0]
    assert f"{parts[-1]} is damaged" in said(**{last: whole[parts[-1]][:-64]})
    assert len(body) > size


def _is_among(err: str, parts: list[Path], number: int) -> bool:
    """Whether this slice is among those that are told to hold the damage, which are not all."""
    match = re.search(r"one of (\S+) to (\S+) is damaged", err)
    assert match is not None, err
    low, high = parts.index(Path(match[1])), parts.index(Path(match[2]))
    return low <= number <= high and high - low < len(parts) - 1


def test_a_changed_envelope_is_found_when_parts_are_joined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "m.mfd", tmp_path / "n.mfd"
    write(path, layers())
    parts = split(capsys, path, "--by", "layer")
    packet = decode(parts[0].read_bytes())
    changed = replace(packet, envelope=replace(packet.envelope, hop_limit=9))
    parts[0].write_bytes(b"".join(encode(changed)))
    code, _, err = run(capsys, "join", *parts, "--out", out)
    assert code == 1
    assert "envelope was changed" in err
    assert not out.exists()


def tuned(seed: int = 1) -> dict[str, dict[str, Any]]:
    """The layers of `layers`, a little further on."""
    rng = np.random.default_rng(9)
    made = layers(seed)
    stem = made["stem"]["stem.w"]
    made["stem"]["stem.w"] = (stem + rng.normal(0, 2e-5, stem.shape)).astype(np.float32)
    return made


def test_a_packet_may_build_upon_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, small, back = (tmp_path / f"{name}.mfd" for name in ("old", "new", "small", "back"))
    write(old, layers())
    body = write(new, tuned())
    facts = run_json(capsys, "convert", new, small, "--encoding", "delta", "--base", old)
    assert facts["bytes_after"] < 0.7 * facts["bytes_before"]
    told = run_json(capsys, "inspect", small)["layers"][0]
    assert (told["encoding"], len(told["base"])) == ("delta", 64)
    assert "builds upon" in run(capsys, "inspect", small)[1]
    assert run(capsys, "verify", small, "--base", old)[0] == 0
    code, _, err = run(capsys, "verify", small)
    assert code == 1
    assert "the base object of a delta is not at hand" in err
    code, _, err = run(capsys, "convert", small, back)
    assert code == 1
    assert f"mfd packet convert {small} OUT.mfd --base THAT.mfd makes it stand alone" in err
    run_json(capsys, "convert", small, back, "--base", old)
    assert back.read_bytes() == body
    assert run_json(capsys, "diff", old, small)["travel_bytes"] > 0
    for wrong, code, said in (
        (("verify", small, "--base", new), 1, "the base given does not hold object"),
        (("convert", small, back, "--base", new), 1, "layers that the base does not hold"),
        (("convert", new, old, "--encoding", "delta", "--base", old), 2, "is the base that it"),
        (("convert", new, back, "--encoding", "delta"), 2, "name it with --base FILE"),
    ):
        found, _, err = run(capsys, *wrong)
        assert (found, said in err) == (code, True), err
    assert old.read_bytes() == write(tmp_path / "again.mfd", layers())
    damaged = bytearray(old.read_bytes())
    damaged[-5000] ^= 1
    old.write_bytes(damaged)
    for words in (("convert", new, small, "--encoding", "delta"), ("verify", small)):
        found, _, err = run(capsys, *words, "--base", old)
        assert (found, f"{old} is not sound" in err) == (1, True), err
    assert run_json(capsys, "convert", new, back, "--encoding", "int4")["used"] == ["planes"]


def test_an_encoding_is_chosen_for_a_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, out = (tmp_path / f"{name}.mfd" for name in ("old", "new", "out"))
    write(old, layers())
    write(new, tuned())
    words = ("convert", new, out, "--encoding", "auto", "--base", old, "--link")
    chosen = run_json(capsys, *words, "50 Mbit/s")["chosen"]
    assert chosen["stem"]["encoding"] == "delta"
    assert "at 50 Mbit/s" in chosen["stem"]["why"]
    assert run(capsys, *words, "100Gbit/s")[1].startswith("stem: raw, 100% of the bytes")
    for wrong, said in (
        (("--encoding", "auto"), "go together"),
        (("--link", "5Mbit/s"), "go together"),
        (("--encoding", "auto", "--link", "fast"), "write 100Mbit/s"),
        (("--encoding", "auto", "--link", "0bit/s"), "write 100Mbit/s"),
        (("--encoding", "huffman"), "is not known"),
    ):
        code, _, err = run(capsys, "convert", new, out, *wrong)
        assert code == 2
        assert said in err


def test_damage_is_told_chunk_by_chunk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.mfd"
    body = bytearray(write(path, layers(), encoding=Encoding.RAW))
    places = run_json(capsys, "verify", path)
    assert places["sound"]
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    code, out, err = run(capsys, "verify", path)
    assert code == 1
    assert "the first bad chunk is number 0 of layer 'stem'" in err
    assert "4 of 5 chunks are good" in err
    assert "the content does not have the digest that names it" in out
    code = main(["packet", "verify", str(path), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == 1
    assert (told["sound"], told["signed"]) == (False, True)
    assert [item["good"] for item in told["objects"]] == [1, 1, 1, 1]
    assert told["objects"][0]["bad"][0]["chunk"] == 0
    path.write_bytes(body[:-300])
    code, _, err = run(capsys, "verify", path)
    assert "300 bytes are missing" in err
    assert run_json(capsys, "inspect", path)["missing_bytes"] == 300
    assert "mfd packet verify tells" in run(capsys, "inspect", path)[1]


@pytest.mark.parametrize("name", ["m.mfd.1-of-99999999999999", "m.mfd.0-of-1", "m.mfd.2-of-1"])
def test_a_name_that_promises_what_no_split_gives_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / name
    part.write_bytes(b"slice")
    code, _, err = run(capsys, "join", part, "--out", tmp_path / "n.mfd")
    assert code == 1
    assert "a packet has at most 9999 parts, numbered from 1" in err
