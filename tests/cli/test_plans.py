"""From words to a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfd.cli.errors import Misuse
from mfd.cli.plans import join_plan, make_plan, parse_recipe, parse_sets, read_plan

HOME = bytes(32)
RECIPE = {"zoo": "mlp", "inputs": [8], "classes": 2}


@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ("vgg11", {"zoo": "vgg11"}),
        (
            "cnn:inputs=1x8x8,classes=10,norm=batch",
            {"zoo": "cnn", "inputs": [1, 8, 8], "classes": 10, "norm": "batch"},
        ),
        (
            "mlp:inputs=64,hidden=32x,classes=2",
            {"zoo": "mlp", "inputs": [64], "hidden": [32], "classes": 2},
        ),
        ("transformer:dropout=0.1", {"zoo": "transformer", "dropout": 0.1}),
    ],
)
def test_recipes(text: str, recipe: dict[str, object]) -> None:
    assert parse_recipe(text) == recipe


@pytest.mark.parametrize("text", ["", ":a=1", "cnn:a", "cnn:=1", "cnn:a="])
def test_wrong_recipes(text: str) -> None:
    with pytest.raises(Misuse, match="recipe"):
        parse_recipe(text)


def test_sets_reach_the_plan_or_the_learner() -> None:
    sets = ["order=stop", "head=false", "lr=1e-3", "learn.epochs=2", "verify=a,b"]
    assert parse_sets(sets) == {
        "order": "stop",
        "head": False,
        "verify": ["a", "b"],
        "learn": {"lr": 1e-3, "epochs": 2},
    }


def test_the_last_table_counts_and_learn_adds_up() -> None:
    joined = join_plan(
        {"laps": 2, "names": ["a"], "learn": {"lr": 0.1, "epochs": 1}, "recipe": RECIPE},
        {"learn": {"lr": 0.2}},
        {"laps": 3},
    )
    plan = make_plan(joined, HOME)
    assert (plan.laps, plan.names) == (3, ("a",))
    assert plan.learn == {"lr": 0.2, "epochs": 1}


@pytest.mark.parametrize(
    ("table", "part"),
    [
        ({"names": ["a"]}, "recipe"),
        ({"recipe": RECIPE}, "--names"),
        ({"recipe": RECIPE, "names": "a"}, "list"),
        ({"recipe": RECIPE, "names": ["a"], "mode": "wlk"}, "'walk'"),
        ({"recipe": RECIPE, "names": ["a"], "laps": "two"}, "laps are a whole number from 1"),
        ({"recipe": RECIPE, "names": ["a"], "laps": 0}, "a whole number from 1, not 0"),
        ({"recipe": RECIPE, "names": ["a"], "laps": True}, "not True"),
        ({"recipe": RECIPE, "names": ["a"], "min_holders": 0}, "min_holders is a whole number"),
        ({"recipe": RECIPE, "names": ["a"], "seed": -1}, "seed is a whole number from 0"),
        ({"recipe": RECIPE, "names": ["a"], "order": "swep"}, "did you mean 'sweep'"),
        ({"recipe": RECIPE, "names": ["a", "a"]}, "plan"),
    ],
)
def test_wrong_plans(table: dict[str, object], part: str) -> None:
    with pytest.raises(Misuse) as told:
        make_plan(table, HOME)
    assert part in str(told.value)


def test_plan_files_with_unknown_keys_name_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text("lap = 2\n")
    with pytest.raises(Misuse, match="did you mean 'laps'"):
        read_plan(path)
    path.write_text('home = "x"\n')
    with pytest.raises(Misuse, match="home"):
        read_plan(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[learn]\nepoch = 2\n", "plan.learn has no 'epoch'; did you mean 'epochs'?"),
        ("[learn]\nshare = 'proxy'\n", "share is of plans of mode distill alone"),
        ("epochs = 2\n", "epochs is an option of learning: write it beneath [learn]"),
        ("learn = 3\n", "learn is a table, [learn], not 3"),
        ("recipe = 'cnn'\n", "recipe is a table, [recipe], not 'cnn'"),
    ],
)
def test_plan_files_with_wrong_learning_say_what_is_meant(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(Misuse) as told:
        make_plan(join_plan({"recipe": RECIPE, "names": ["a"]}, read_plan(path)), HOME)
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("lasp=3", "did you mean 'laps'?"),
        ("epoch=3", "did you mean 'epochs'?"),
        ("learn.bacth=3", "did you mean 'batch'?"),
        ("learn.laps=3", "there is no such field"),
        ("recipe=cnn", "a model is given by itself"),
        ("learn=3", "name the option of learning itself"),
    ],
)
def test_an_unknown_name_in_a_flag_names_the_nearest(pair: str, said: str) -> None:
    with pytest.raises(Misuse) as told:
        parse_sets([pair])
    assert pair.partition("=")[0] in str(told.value)
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("scales", "said"),
    [
        ("2", "width 2"),
        ("0.5:2:3", "weights of 3 bits are not known; 16, 8, 4 are"),
        ("0", "width is above 0 and at most 1"),
        ("wide", "is not WIDTH:DEPTH:BITS"),
        ("1", "is the full model"),
        ("1:0:8", "1:0:8 is the full model, and fewer bits alone save no memory"),
        ("0.5,0.5:0:8", "1/2:0:8 would never be taken, since 1/2 stands before it"),
        ("0.5,0.5", "1/2 would never be taken, since 1/2 stands before it"),
        ("0.25,0.5", "1/2 would never be taken, since 1/4 stands before it and is no larger"),
        ("0.5:2,0.5", "since 1/2:2 stands before it"),
        ("0.5:2:8,0.5:3:16", "since 1/2:2:8 stands before it"),
    ],
)
def test_scales_that_make_no_sense_are_refused(scales: str, said: str) -> None:
    table = {"recipe": RECIPE, "names": ["a"], **parse_sets([f"scales={scales}"])}
    with pytest.raises(Misuse) as told:
        make_plan(table, HOME)
    assert said in str(told.value)
    assert make_plan({**table, "scales": ["0.5", "1:2", "1/2:1:8"]}, HOME).extra[51]


def test_the_order_of_holders_is_chosen_by_name() -> None:
    table = {"recipe": {"zoo": "mlp"}, "names": ["a"]}
    assert make_plan({**table, "choose": "nearest"}, bytes(32)).extra == {}
    assert make_plan({**table, **parse_sets(["choose=labels"])}, bytes(32)).extra == {29: "labels"}
    with pytest.raises(Misuse, match="did you mean 'labels'"):
        make_plan({**table, "choose": "label"}, bytes(32))


@pytest.mark.parametrize("told", ["2:5", [2, 5]])
def test_the_body_is_a_range_of_layers(told: object) -> None:
    table = {"recipe": RECIPE, "names": ["a"], "body": told, "first": True}
    plan = make_plan(table, HOME)
    assert (plan.body, plan.first) == ((2, 5), True)
    for wrong in ("2", "2:x", [2], [2, 3, 4], True):
        with pytest.raises(Misuse, match=r"body is a range of layers, \[2, 5\] or 2:5, not"):
            make_plan({**table, "body": wrong}, HOME)
    with pytest.raises(Misuse, match="plan cannot travel"):
        make_plan({**table, "body": [5, 2]}, HOME)
    assert parse_sets(["body=2:5", "first=true"]) == {"body": "2:5", "first": True}


def test_several_walkers_are_told_of_by_name() -> None:
    table = {"recipe": RECIPE, "names": ["a"], "mode": "walk"}
    told = {**table, **parse_sets(["walkers=3", "merge=near:0.5", "gate=0.25"])}
    assert make_plan(told, HOME).extra == {41: 3, 43: "near:0.5", 45: 0.25}
    assert make_plan({**table, "walkers": 1}, HOME).extra == {}
    gossip = make_plan({**table, "mode": "gossip", "walkers": 2, "choose": "nearest"}, HOME)
    assert gossip.extra == {41: 2, 29: "nearest"}
    for wrong, said in (
        ({"merge": "media"}, "did you mean 'median'"),
        ({"merge": "near:x"}, "write NAME or NAME:NUMBER, such as near:0.3"),
        ({"gate": -1}, "gate -1 is not a number from 0"),
        ({"walkers": 65}, "walkers 65 is not a number from 1 to 64"),
        ({"walkers": 2, "mode": "fedavg"}, "fedavg has one walker"),
    ):
        with pytest.raises(Misuse, match=said):
            make_plan({**table, **wrong}, HOME)
