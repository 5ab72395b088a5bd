"""Models in and out of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mfd.cli.errors import CommandError, Misuse
from mfd.cli.plans import make_plan
from mfd.cli.saving import open_model, save
from mfd.cli.sending import build, make_walker, user_key
from mfd.net.injection import InjectionReader
from mfd.net.keys import KeyPair, verify
from mfd.packet import Packet, Plan, Tensor, decode, encode

KEYS = KeyPair.from_seed(bytes(range(32)))
RECIPE = {"zoo": "mlp", "inputs": [4], "classes": 2, "hidden": [3]}


def _tensor(dtype: str, shape: tuple[int, ...], raw: bytes) -> Tensor:
    return Tensor(dtype, shape, memoryview(raw))


def _packet(**tensors: Tensor) -> tuple[Packet, bytes]:
    body = b"".join(encode(Packet.from_tensors({"only": tensors}, signer=KEYS)))
    return decode(body), body


def test_safetensors_are_read_back_bit_for_bit(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    sources = {
        "a": torch.tensor([True, False, True]),
        "b": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
        "c": torch.tensor(2.5, dtype=torch.float64),
        "d": torch.arange(4, dtype=torch.float32).to(torch.float8_e4m3fn),
        "e": torch.empty(0, 3),
    }
    packet, body = _packet(**{k: Tensor.of(t) for k, t in sources.items()})
    path = tmp_path / "m.safetensors"
    save(packet, body, path)
    found = load_file(path)
    assert found.keys() == sources.keys()
    for key, tensor in sources.items():
        assert found[key].dtype == tensor.dtype
        assert found[key].shape == tensor.shape
        found_bytes, told_bytes = (t.reshape(-1).view(torch.uint8) for t in (found[key], tensor))
        assert found_bytes.equal(told_bytes)
    assert not list(tmp_path.glob(".*"))


def test_what_safetensors_cannot_say_is_refused(tmp_path: Path) -> None:
    packet, body = _packet(z=_tensor("c128", (1,), bytes(16)))
    with pytest.raises(CommandError, match="c128"):
        save(packet, body, tmp_path / "m.safetensors")
    save(packet, body, tmp_path / "m.mfd")
    assert (tmp_path / "m.mfd").read_bytes() == body


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    packet, body = _packet(x=Tensor.of(np.zeros(3, np.float32)))
    with pytest.raises(CommandError, match="cannot be written"):
        save(packet, body, tmp_path / "no" / "m.mfd")


def test_every_flipped_bit_of_a_model_is_found() -> None:
    _, body = _packet(x=Tensor.of(np.arange(64, dtype=np.float32)))
    for place in range(0, len(body), 7):
        broken = bytearray(body)
        broken[place] ^= 1
        try:
            found = open_model(bytes(broken), "it")
        except CommandError:
            continue
        # The envelope is not signed; whatever lies in it, the content is what was signed.
        assert bytes(found.layer(0)["x"].data) == np.arange(64, dtype=np.float32).tobytes()


def test_a_walker_is_signed_and_whole(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    plan = Plan(recipe=RECIPE, names=("a",), home=bytes(32))
    walker, parts = make_walker(build(RECIPE, seed=1), plan, KEYS)
    with (tmp_path / "packet").open("w+b") as file:
        reader = InjectionReader(file, lambda _: None)
        for part in parts:
            reader.feed(part)
        reader.finish()
        file.seek(0)
        packet = decode(file.read(), verify)
    packet.check()
    assert packet.manifest.walker.hex() == walker
    assert list(packet.tensors()) == [ref.name for ref in packet.manifest.layers]
    again, _ = make_walker(build(RECIPE, seed=1), plan, KEYS)
    assert again != walker  # every sending is a journey of its own


def test_wrong_options_of_learning_are_found_before_the_journey() -> None:
    pytest.importorskip("torch")
    table = {"recipe": RECIPE, "names": ["a"], "learn": {"epoch": 3}}
    with pytest.raises(Misuse, match="did you mean 'epochs'"):
        make_plan(table, home=bytes(32))


def test_init_must_fit_the_recipe(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    path = tmp_path / "i.safetensors"
    save_file({"head.weight": torch.zeros(9, 9)}, path)
    with pytest.raises(Misuse, match=r"does not fit the recipe: head\.weight is 9 x 9") as told:
        build(RECIPE, init=path)
    assert "\n" not in str(told.value)
    state = build(RECIPE).state_dict()
    save_file({name: torch.zeros(t.shape, dtype=torch.int64) for name, t in state.items()}, path)
    with pytest.raises(Misuse, match="of whole numbers there"):
        build(RECIPE, init=path)
    save_file({name: torch.zeros(t.shape).half() for name, t in state.items()}, path)
    assert not build(RECIPE, init=path).state_dict()["head.weight"].any()
    save_file({**state, "more": torch.zeros(1)}, path)
    with pytest.raises(Misuse, match="it has more, which the model has not"):
        build(RECIPE, init=path)


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("no.safetensors", None, "cannot be read: No such file"),
        ("a.safetensors", b"", "is not a sound safetensors file"),
        ("a.safetensors", b"garbage" * 9, "is not a sound safetensors file"),
        ("a.mfd", b"\x93MFD", "`mfd packet convert .*a.mfd .*a.safetensors` makes it"),
    ],
)
def test_a_bad_file_of_first_tensors_is_one_sentence(
    name: str, body: bytes | None, said: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    if body is not None:
        (tmp_path / name).write_bytes(body)
    with pytest.raises(Misuse, match=said) as told:
        build(RECIPE, init=tmp_path / name)
    assert str(tmp_path / name) in str(told.value)
    assert "\n" not in str(told.value)


def test_the_users_key_is_made_once_and_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    first = user_key(None)
    assert capsys.readouterr().err == f"mfd: made a new key, {tmp_path / 'mfd' / 'key'}\n"
    assert (tmp_path / "mfd" / "key").stat().st_mode & 0o777 == 0o600
    assert user_key(None).public_key == first.public_key
    assert capsys.readouterr().err == ""


def test_a_file_may_hold_a_tied_tensor_once_under_either_name(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from safetensors.torch import save_file

    from tests.learn.hfmodels import GPT2

    module, path = build(GPT2, seed=1), tmp_path / "m.safetensors"
    state = dict(module.state_dict())
    head = state.pop("lm_head.weight")
    save_file(state, path)
    other = build(GPT2, seed=2, init=path)
    assert torch.equal(other.state_dict()["lm_head.weight"], head)
    state["lm_head.weight"] = state.pop("transformer.wte.weight")
    save_file(state, path)
    third = build(GPT2, seed=3, init=path)
    assert torch.equal(third.state_dict()["transformer.wte.weight"], head)
