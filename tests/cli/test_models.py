"""Which model a user means, shown and sent, and saved in the form of Hugging Face."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from mfd.cli.errors import CommandError, Misuse
from mfd.cli.main import main
from mfd.cli.models import HfOrder, from_hf, hf_order, module_of, with_base
from mfd.cli.saving import check_out, open_model, plan_of, save
from mfd.cli.sending import make_walker
from mfd.learn.layers import find_layers
from mfd.learn.recipes import init
from mfd.net.injection import InjectionReader
from mfd.net.keys import KeyPair
from mfd.packet import Plan
from mfd.packet.chunks import Encoding
from mfd.packet.manifest import Kind
from mfd.packet.objects import wrap_object
from mfd.packet.packet import Packet, decode, encode

KEYS = KeyPair.from_seed(bytes(range(32)))
SIZES = {
    "n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 64, "n_positions": 32,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` writes it."""
    place = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(7)
    GPT2LMHeadModel(GPT2Config(**SIZES)).save_pretrained(place)
    return place


def own(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).state_dict())


def test_a_folder_becomes_a_recipe_with_its_weights(folder: Path) -> None:
    recipe, module = from_hf(HfOrder(folder))
    assert recipe["hf"]["class"] == "AutoModelForCausalLM"
    assert recipe["hf"]["config"]["n_embd"] == 16
    assert "_name_or_path" not in recipe["hf"]["config"]
    state = module.state_dict()
    assert set(state) == set(own(folder))
    assert all(torch.equal(state[key], value) for key, value in own(folder).items())


def test_a_new_head_is_drawn_by_the_seed_and_the_body_is_kept(folder: Path) -> None:
    order = HfOrder(folder, head="sequence", labels=3, seed=5)
    recipe, module = from_hf(order)
    assert recipe["hf"]["config"]["num_labels"] == 3
    state, again = module.state_dict(), from_hf(order)[1].state_dict()
    assert state["score.weight"].shape == (3, 16)
    assert torch.equal(state["score.weight"], again["score.weight"])
    body = own(folder)["transformer.h.1.attn.c_attn.weight"]
    assert torch.equal(state["transformer.h.1.attn.c_attn.weight"], body)


def test_random_values_by_the_seed(folder: Path) -> None:
    order = HfOrder(folder / "config.json", init=Path("random"), seed=3)
    one, two = from_hf(order)[1].state_dict(), from_hf(order)[1].state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["transformer.wte.weight"], own(folder)["transformer.wte.weight"])


def changed(folder: Path, tmp_path: Path, **values: Any) -> Path:
    told = json.loads((folder / "config.json").read_text()) | values
    (tmp_path / "config.json").write_text(json.dumps(told))
    return tmp_path


def test_what_is_wrong_with_a_folder_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    for order, words in (
        (HfOrder(tmp_path / "no"), "there is no such folder or configuration"),
        (HfOrder(changed(folder, tmp_path)), "has no weights in the safetensors format: give --in"),
        (HfOrder(folder, head="heads"), "--head heads: "),
        (HfOrder(folder, lora="r8"), "'r8' is not KEY=VALUE"),
        (HfOrder(folder, lora="r=0"), "r is a whole number from 1 to 4096"),
        (HfOrder(folder, lora="targets=nothing"), "no module is called 'nothing'; .* c_attn, c_fc"),
        (HfOrder(folder, lora="targets=c_attn+c_porj"), "no module is called 'c_porj'"),
    ):
        with pytest.raises(Misuse, match=words) as told:
            from_hf(order)
        assert "\n" not in str(told.value)
    for values, words in (
        ({"auto_map": {"AutoConfig": "x.Evil"}, "model_type": "evil"}, "no model_type 'evil'"),
        ({"architectures": ["GPT2Model"]}, "is a GPT2Model, which has no head .* give --head"),
        ({"architectures": None}, "does not say its class"),
        ({"model_type": "gpt2", "quantization_config": {"bits": 4}}, "not allowed in a plan"),
        ({"n_embd": 32}, "the weights in .* do not fit|are not those of"),
        ({"n_layer": 2}, "the weights in .* are not those of .*c_attn"),
    ):
        place = changed(folder, tmp_path, **values)
        save_file({"transformer.wte.weight": torch.zeros(64, 16)}, place / "model.safetensors")
        with pytest.raises(Misuse, match=words):
            from_hf(HfOrder(place))
    with pytest.raises(Misuse, match="belong to a model given by --hf"):
        hf_order(None, "causal", None, None)


def told(argv: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert main(["layers", *argv, "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["layers"]
    return rows


def test_layers_of_all_that_can_be_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = told([str(folder)], capsys)
    blocks = [f"transformer.h.{i}" for i in range(2)]
    assert [row["name"] for row in rows] == ["first", *blocks, "last"]
    assert rows[0]["tied"] == ["lm_head.weight"]
    assert all(row["trains"] for row in rows)
    assert told([str(folder / "config.json")], capsys) == rows
    of_file = told([str(folder / "model.safetensors")], capsys)
    # a file knows names alone: no head that is tied, all else alike
    assert [{**row, "tied": []} for row in rows] == of_file
    adapters = told([str(folder), "--lora", "r=4,alpha=8"], capsys)
    assert [row["trains"] for row in adapters] == [False] * 4 + [True] * 2
    _, module = from_hf(HfOrder(folder))
    sizes = [ref.bytes for ref in _packed(module)]
    assert [row["bytes"] for row in rows] == sizes
    plan = tmp_path / "plan.toml"
    plan.write_text('[recipe]\nzoo = "mlp"\ninputs = [4]\nclasses = 2\n')
    assert [row["name"] for row in told([str(plan)], capsys)] == ["fc1", "fc2", "head"]
    assert main(["layers", "py:torch.nn:Module"]) == 2
    assert "--allow-py" in capsys.readouterr().err
    (tmp_path / "ownmodel.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Linear(2, 2))\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        assert told(["py:ownmodel:make", "--allow-py"], capsys)[0]["parameters"] == 6
    with pytest.raises(Misuse, match=r"made a str, not an nn\.Module"):
        module_of("py:os:getcwd", allow_py=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a..weight", "'a..weight' cannot be the name of a tensor in a module"),
        ("forward.weight", "'forward.weight' cannot be the name of a tensor in a module"),
        ("training", "'training' cannot be the name of a tensor in a module"),
        ("a." * 100 + "w", "lies in 100 modules > 64"),
    ],
)
def test_names_of_a_file_that_no_module_can_have_are_one_sentence(
    name: str, words: str, tmp_path: Path
) -> None:
    save_file({name: torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CommandError, match=words):
        module_of(str(tmp_path / "x.safetensors"))


def test_a_saved_model_tells_its_layers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What came home is shown as its recipe cuts it, from the packet and from plain tensors."""
    recipe = {"zoo": "mlp", "inputs": [4], "classes": 2}
    packet, body = came_home(recipe, init(recipe, 1), tmp_path)
    save(packet, body, tmp_path / "home.safetensors")
    save(packet, body, tmp_path / "home.mfd")
    for name in ("home.safetensors", "home.mfd"):
        assert [row["name"] for row in told([str(tmp_path / name)], capsys)] == [
            "fc1",
            "fc2",
            "head",
        ]
    adapters, body = came_home(*from_hf(HfOrder(folder, lora="r=4")), tmp_path)
    save(adapters, body, tmp_path / "a.safetensors")
    save(adapters, body, tmp_path / "a.mfd")
    assert len(told([str(tmp_path / "a.safetensors")], capsys)) == 2  # no base is in it
    assert len(told([str(tmp_path / "a.mfd")], capsys)) == 6
    foreign = tmp_path / "foreign.safetensors"
    tensors = {"fc1.1.weight": torch.zeros(2, 2)}
    for note in ("{", "[]", '{"local": "mine"}'):  # notes of others, or broken, count as none
        save_file(tensors, foreign, {"mfd.recipe": note})
        assert len(told([str(foreign)], capsys)) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["gpt2"], "there is no file or folder gpt2, nor a model of that name in the zoo"),
        (["cnn"], "lacks inputs, classes: as in cnn:inputs=1x8x8,classes=10"),
        (["mlp:inputs=4,classes=2", "--lora", "r=4"], "belong to a folder of Hugging Face"),
        (["own.py"], "a function of yours is py:MODULE:FUNCTION"),
        (["none.mfd"], "none.mfd cannot be read"),
        (["bare.mfd"], "carries no plan that names its model"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(
    args: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").touch()
    bare = Packet.from_tensors({"head": {"weight": torch.zeros(2, 2)}})
    Path("bare.mfd").write_bytes(b"".join(bytes(part) for part in encode(bare)))
    assert main(["layers", *args]) in (1, 2)
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


class _Size:
    def __init__(self, size: int) -> None:
        self.bytes = size


def _packed(module: torch.nn.Module) -> list[_Size]:
    from mfd.learn.layers import pack

    return [_Size(pack(module, layer).raw_bytes) for layer in find_layers(module)]


def came_home(
    recipe: dict[str, Any], module: torch.nn.Module, tmp_path: Path
) -> tuple[Packet, bytes]:
    """The packet that a peer gives of a walker, its plan with it."""
    plan = with_base(Plan(recipe=recipe, names=("a",), home=bytes(32), task="language"), module)
    _, parts = make_walker(module, plan, KEYS)
    with (tmp_path / "packet").open("w+b") as file:
        reader = InjectionReader(file, lambda _: None)
        for part in parts:
            reader.feed(part)
        _, record = reader.finish()
        file.seek(0)
        sent = decode(file.read())
    objects = {**sent.objects, sent.manifest.plan: wrap_object(record)}
    whole = Packet(sent.manifest, sent.manifest_bytes, sent.signature, objects)
    body = b"".join(bytes(part) for part in encode(whole, Encoding.RAW))
    return open_model(body, "it"), body


def test_a_model_fills_a_folder_that_transformers_reads(folder: Path, tmp_path: Path) -> None:
    recipe, module = from_hf(HfOrder(folder))
    packet, body = came_home(recipe, module, tmp_path)
    assert packet.manifest.kind is Kind.LAYERS
    out = tmp_path / "out"
    assert check_out(out) is None
    save(packet, body, out)
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors"]
    assert all(torch.equal(own(out)[key], value) for key, value in own(folder).items())
    bare = Packet(packet.manifest, packet.manifest_bytes, packet.signature, {})
    with pytest.raises(CommandError, match="only a model of Hugging Face fills a folder"):
        save(bare, body, out)


def test_adapters_fill_a_folder_that_peft_reads(folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    recipe, module = from_hf(HfOrder(folder, lora="r=4,alpha=8,targets=c_attn+c_proj", seed=2))
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if "lora_B" in key:
                value.normal_(generator=torch.Generator().manual_seed(1))
    packet, body = came_home(recipe, module, tmp_path)
    assert packet.manifest.kind is Kind.ADAPTER
    plan = plan_of(packet)
    assert plan is not None
    assert plan.extra == {39: 4}
    save(packet, body, tmp_path / "a.safetensors")
    assert all("lora_" in key for key in load_file(tmp_path / "a.safetensors"))
    out = tmp_path / "out"
    save(packet, body, out)
    names = ["adapter_config.json", "adapter_model.safetensors"]
    assert sorted(p.name for p in out.iterdir()) == names
    base = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    with warnings.catch_warnings():  # PEFT asks transformers under a name that is going away
        warnings.simplefilter("ignore", FutureWarning)
        loaded = PeftModel.from_pretrained(base, out)
    x = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(loaded(x).logits, module(x))
        loaded.disable_adapter_layers()
        assert not torch.allclose(loaded(x).logits, module(x))
