"""`mfd scale`: what is written builds and runs with the recipe that is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mfd.cli.main import main
from mfd.cli.plans import parse_recipe
from mfd.cli.sending import build
from mfd.learn import zoo
from mfd.learn.layers import export_safetensors, find_layers
from mfd.packet import Packet, Scale, decode, encode
from mfd.packet.packet import Encoding

RECIPE = "cnn:inputs=1x8x8,classes=10,width=8,hidden=16,exits=true"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "full.safetensors"
    export_safetensors(path, zoo.init(parse_recipe(RECIPE), 3))
    return path


def runs(recipe: dict[str, Any], path: Path) -> torch.nn.Module:
    module = build(recipe, init=path).eval()
    assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    return module


def test_half_the_channels_and_blocks(model: Path, capsys: Any) -> None:
    out = model.with_name("half.safetensors")
    words = ["--width", "0.5", "--depth", "0.5", "--recipe", RECIPE, "-o", str(out)]
    assert main(["scale", str(model), *words]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{out}: 860 of ") or "parameters" in first
    recipe = parse_recipe(second.removeprefix("recipe: "))
    assert (recipe["width"], recipe["depth"], recipe["exits"]) == (4, 2, True)
    module = runs(recipe, out)
    full = zoo.init(parse_recipe(RECIPE), 3).state_dict()
    for name, value in module.state_dict().items():
        cut = tuple(slice(0, extent) for extent in value.shape)
        if "exit" not in name:
            assert torch.equal(value, full[name][cut]), name


def test_a_packet_becomes_one_whose_parent_it_is(model: Path, capsys: Any) -> None:
    module = zoo.init(parse_recipe(RECIPE), 3)
    state = module.state_dict()
    layers = {la.name: {k: state[k] for k in la.tensors} for la in find_layers(module)}
    source, out = model.with_name("full.mfd"), model.with_name("small.mfd")
    source.write_bytes(b"".join(encode(Packet.from_tensors(layers), Encoding.RAW)))
    words = ["--depth", "3", "--bits", "8", "--recipe", RECIPE, "-o", str(out), "--json"]
    assert main(["scale", str(source), *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["width"], told["depth"], told["bits"]) == ("1", 3, 8)
    small = decode(out.read_bytes())
    assert small.manifest.scale == Scale(1, 3, 8)
    assert [ref.name for ref in small.manifest.layers] == ["conv1", "conv2", "conv3"]
    plain = model.with_name("small.safetensors")
    assert main(["packet", "convert", str(out), str(plain)]) == 0
    runs(parse_recipe(str(small.manifest.claims["recipe"])), plain)
    capsys.readouterr()
    assert main(["scale", str(out), "--width", "0.5", "-o", str(plain)]) == 1
    assert "is a scaled version already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--width", "2"], "cannot be scaled so: width 2"),
        (["--width", "wide"], "cannot be scaled so"),
        (["--depth", "5"], "depth 5: the axes name 4 blocks"),
        (["--depth", "1.5"], "depth 1.5 is neither a part of the blocks nor a number"),
        (
            ["--depth", "2", "--recipe", RECIPE.removesuffix(",exits=true")],
            "does not fit the recipe: ",
        ),
        (["--bits", "7"], "bits 7: weights can have"),
        (["--recipe", "mlp:inputs=1x8x8,classes=10"], "does not fit the recipe"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    model: Path, words: list[str], message: str, capsys: Any
) -> None:
    out = ["-o", str(model.with_name("x.safetensors"))]
    given = words if "--recipe" in words else ["--recipe", RECIPE, *words]
    assert main(["scale", str(model), *given, *out]) in (1, 2)
    assert message in capsys.readouterr().err


def test_a_file_that_does_not_tell_its_model(model: Path, capsys: Any) -> None:
    out = model.with_name("x.mfd")
    assert main(["scale", str(model), "-o", str(out)]) == 2
    assert "does not tell its layers: say --recipe" in capsys.readouterr().err
    assert main(["scale", str(model), "--recipe", RECIPE, "-o", str(model.with_name("x.pt"))]) == 2
    assert "what is written is .mfd or .safetensors" in capsys.readouterr().err


def test_a_file_that_tells_its_recipe_needs_none(tmp_path: Path, capsys: Any) -> None:
    recipe = "cnn:inputs=1x8x8,classes=10,width=8,hidden=16"
    path, out = tmp_path / "told.safetensors", tmp_path / "half.safetensors"
    notes = {"mfd.recipe": json.dumps(parse_recipe(recipe))}
    save_file(dict(zoo.init(parse_recipe(recipe), 3).state_dict()), path, notes)
    assert main(["scale", str(path), "--width", "0.5", "-o", str(out)]) == 0
    told = capsys.readouterr().out.splitlines()[1].removeprefix("recipe: ")
    runs(parse_recipe(told), out)
    assert main(["scale", str(out), "--width", "0.5", "-o", str(tmp_path / "x.mfd")]) == 1
    assert "is a scaled version already" in capsys.readouterr().err
    assert main(["scale", str(path), "--depth", "2", "-o", str(tmp_path / "x.mfd")]) == 1
    assert "only a model with an exit after every block has a depth" in capsys.readouterr().err
    notes = {"mfd.recipe": json.dumps({"hf": {}})}
    save_file({"a": torch.zeros(1)}, path, notes)
    assert main(["scale", str(path), "-o", str(out)]) == 1
    assert "is a model of Hugging Face" in capsys.readouterr().err
