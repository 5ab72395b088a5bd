"""What a user wants a model to do: recipe text, plan file and flags, joined into one plan.

    names = ["digits/train"]          the fields of mfd.packet.plan.Plan, but for home
    laps = 6
    [learn]                           options of the learner: epochs, batch, lr, ...
    [recipe]                          which model: zoo = "cnn", inputs = [1, 8, 8], classes = 10

Rules of this file: torch is not loaded; names and numbers are checked where their meaning is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from mfd.cli.errors import Misuse, nearest, read_toml
from mfd.core.ages import GATE_KEY, MERGE_KEY, RULES, WALKERS_KEY, gate_of, rule_of, walkers_of
from mfd.core.walk import CHOOSE_KEY, POLICIES
from mfd.packet.fields import INT_MAX
from mfd.packet.limits import LAPS_MAX, LAYERS_MAX
from mfd.packet.plan import HOLDERS_MAX, MODES, ORDERS, Plan, encode_plan
from mfd.packet.scales import SCALES_KEY, ordered_scales, parse_scale, plain_scales

__all__ = ["join_plan", "make_plan", "parse_recipe", "parse_sets", "read_plan", "recipe_text"]

NOT_IN_FILES = ("home", "extra")
OPTIONAL = {  # fields that a plan carries by number: what they mean is checked by `_optional`
    "choose": CHOOSE_KEY,
    "walkers": WALKERS_KEY,
    "merge": MERGE_KEY,
    "gate": GATE_KEY,
}
SCALES = "scales"  # what weak peers may train: WIDTH:DEPTH:BITS each; an optional field too
PLAN_FIELDS = (*(f.name for f in fields(Plan) if f.name not in NOT_IN_FILES), *OPTIONAL, SCALES)
COUNTS = {  # fields that are whole numbers, with their bounds
    "laps": (1, LAPS_MAX),
    "full_laps": (0, LAPS_MAX),
    "layers_per_stop": (0, LAYERS_MAX),
    "min_holders": (1, HOLDERS_MAX),
    "seed": (0, INT_MAX),
}
LISTS = ("names", "verify", SCALES)
LACKING = {
    "recipe": "a recipe: give a model, as cnn:inputs=1x8x8,classes=10 or --hf FOLDER",
    "names": "data names: give --names digits/train",
}
TABLES = {  # of the plan: not for --set
    "recipe": "a model is given by itself, as in mfd send cnn:inputs=1x8x8,classes=10",
    "learn": "name the option of learning itself, as in --set epochs=5",
}
_LISTED = {SCALES: "scales such as 0.5 or 1:2"}
Table = dict[str, Any]


def parse_recipe(text: str) -> Table:
    """Read `cnn:inputs=1x8x8,classes=10` into {"zoo": "cnn", "inputs": [1, 8, 8], ...}.

    Raises: Misuse.
    """
    name, _, rest = text.partition(":")
    if name.endswith((".safetensors", ".mfd")):
        raise Misuse(
            f"{name} holds the values of a model: say which model, as "
            "cnn:inputs=1x8x8,classes=10, and begin with these by --init FILE.safetensors"
        )
    recipe: Table = {"zoo": name}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or not key or not value:
            raise Misuse(f"recipe {text!r}: {pair!r} is not KEY=VALUE")
        recipe[key] = _sizes(value) if _is_list(key, value) else _scalar(value)
    if not name:
        raise Misuse(f"recipe {text!r} names no model: write cnn:inputs=1x8x8,classes=10")
    return recipe


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """A recipe of the zoo as `parse_recipe` reads it; of another kind what it is."""
    if "zoo" not in recipe:
        return "a model of Hugging Face" if "hf" in recipe else "a model of the owner's"
    pairs = [f"{k}={_value(k, v)}" for k, v in recipe.items() if k not in ("zoo", "axes")]
    return f"{recipe['zoo']}:{','.join(pairs)}"


def _value(key: str, value: object) -> str:
    if isinstance(value, list | tuple):
        text = "x".join(map(str, value))
        return text if len(value) > 1 or key == "inputs" else text + "x"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_list(key: str, value: str) -> bool:
    return re.fullmatch(r"\d+(x\d+)+|\d+x", value) is not None or (
        key == "inputs" and value.isdecimal()
    )


def _sizes(text: str) -> list[int]:
    return [int(part) for part in text.split("x") if part]


def _scalar(text: str) -> str | int | float | bool:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def parse_sets(pairs: Sequence[str]) -> Table:
    """Read `--set KEY=VALUE`: plan fields by their names, other keys are options of the learner.

    Raises: Misuse.
    """
    table: Table = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or not value:
            raise Misuse(f"--set {pair}: write KEY=VALUE, such as epochs=5")
        if key in LISTS:
            table[key] = value.split(",")
        elif key in TABLES:
            raise Misuse(f"--set {key}: {TABLES[key]}")
        elif key in PLAN_FIELDS:
            table[key] = _scalar(value)
        else:
            table.setdefault("learn", {})[_option(key)] = _scalar(value)
    return table


def _option(key: str) -> str:
    """The option of learning that a flag names. Raises: Misuse."""
    from mfd.learn.options import LEARN_NAMES

    option = key.removeprefix("learn.")
    if option not in LEARN_NAMES:
        known = LEARN_NAMES if key != option else {*PLAN_FIELDS, *LEARN_NAMES} - set(TABLES)
        raise Misuse(
            f"--set {key}: there is no such field of the plan, nor option of learning; "
            f"{nearest(option, known)}"
        )
    return option


def read_plan(path: Path) -> Table:
    """Read a plan file. Raises: Misuse."""
    table = read_toml(path, "plan")
    for key in table:
        if key not in PLAN_FIELDS:
            raise Misuse(f"plan {path}: there is no {key!r} in a plan; {_place(key)}")
    for key in TABLES:
        if not isinstance(table.get(key, {}), dict):
            raise Misuse(f"plan {path}: {key} is a table, [{key}], not {table[key]!r}")
    return table


def _place(key: str) -> str:
    """Where a key that is no field of a plan belongs, or which field is near."""
    from mfd.learn.options import LEARN_NAMES

    if key in LEARN_NAMES:
        return f"{key} is an option of learning: write it beneath [learn]"
    return nearest(key, PLAN_FIELDS)


def join_plan(*tables: Table) -> Table:
    """Lay tables over each other, the last on top; `learn` adds up."""
    joined: Table = {}
    for table in tables:
        learn = {**joined.get("learn", {}), **table.get("learn", {})}
        joined = {**joined, **table, "learn": learn}
    return joined


def _layers(body: object) -> tuple[int, int] | None:
    """Read [2, 5] of a plan file or 2:5 of a flag. Raises: Misuse."""
    match body.split(":") if isinstance(body, str) else body:
        case None:
            return None
        case [int() as low, int() as high]:
            return low, high
        case [str() as low, str() as high] if low.isdecimal() and high.isdecimal():
            return int(low), int(high)
    raise Misuse(f"the plan's body is a range of layers, [2, 5] or 2:5, not {body!r}")


def make_plan(table: Mapping[str, Any], home: bytes) -> Plan:
    """Make the plan that is to be signed. Raises: Misuse."""
    for key, lacking in LACKING.items():
        if not table.get(key):
            raise Misuse(f"the plan lacks {lacking}, or give a plan file that has it")
    laps = table.get("laps", 1)
    if type(laps) is not int or laps < 1:
        raise Misuse(f"the plan's laps are a whole number from 1, not {laps!r}")
    for key in LISTS:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise Misuse(
                f"the plan's {key} is a list of {_LISTED.get(key, 'data names')}, not {value!r}"
            )
    mode = table.get("mode", MODES[0])
    if mode not in MODES:
        raise Misuse(f"there is no mode {mode!r}; {nearest(str(mode), MODES)}")
    values: dict[str, Any] = {key: tuple(v) if key in LISTS else v for key, v in table.items()}
    for key, (least, most) in COUNTS.items():
        number = table.get(key, least)
        if type(number) is not int or not least <= number <= most:
            raise Misuse(f"{key} is a whole number from {least} to {most}, not {number!r}")
    if table.get("order", ORDERS[0]) not in ORDERS:
        raise Misuse(
            f"there is no order {table['order']!r}; {nearest(str(table['order']), ORDERS)}"
        )
    values["body"] = _layers(table.get("body"))
    given = {key: values.pop(key) for key in OPTIONAL if key in values}
    plain = {"walkers": 1, "choose": "" if mode == "gossip" else "nearest"}
    extra: dict[int, Any] = {OPTIONAL[k]: v for k, v in given.items() if v != plain.get(k)}
    scales = values.pop(SCALES, ())
    try:
        if scales:
            extra[SCALES_KEY] = plain_scales(ordered_scales(map(parse_scale, scales)))
        plan = Plan(home=home, **values, extra=extra)
        _check_optional(plan, given)
        _check_learn(plan)
        encode_plan(plan)
    except (ValueError, TypeError, OverflowError) as exc:
        raise Misuse(str(exc)) from exc
    return plan


def _check_learn(plan: Plan) -> None:
    """Raises: ValueError for an unknown option of learning, or a value out of range."""
    from mfd.learn.options import Options, Sharing

    if plan.mode == "distill":
        Sharing.of(plan.learn, plan.mode)
    else:
        Options.of(plan.learn, plan.mode)


def _check_optional(plan: Plan, given: Table) -> None:
    """A peer that cannot read such a field does without it; its author is told. Raises: Misuse."""
    for key, policies in (("choose", POLICIES), ("merge", RULES)):
        name = str(given.get(key, policies[0])).partition(":")[0]
        if name not in policies:
            raise Misuse(f"there is no {key} {name!r}; {nearest(name, policies)}")
    if "merge" in given and rule_of(plan).name != str(given["merge"]).partition(":")[0]:
        raise Misuse(f"merge {given['merge']!r}: write NAME or NAME:NUMBER, such as near:0.3")
    if "gate" in given and gate_of(plan) is None:
        raise Misuse(f"gate {given['gate']!r} is not a number from 0, such as 0.5")
    if "walkers" in given and given["walkers"] != walkers_of(plan):
        raise Misuse(f"walkers {given['walkers']!r} is not a number from 1 to 64")
    if plan.mode == "distill" and SCALES_KEY in plan.extra:
        raise Misuse("plans of mode distill train their walker whole: leave scales out")
    if plan.mode == "fedavg" and walkers_of(plan) > 1:
        raise Misuse("fedavg has one walker, which stays at home: leave walkers out")
