"""The plans of a comparison: as a user writes them, made whole with the sizes of the data.

    snake                                 a mode, with what all plans have
    half=snake:scales=0.5,1:2,laps=4      a label, and options; what has no = goes on with a list
    distill:share=logits                  what is shared is no model: its recipe is made here
    plan.toml                             a plan file

Rules of this file: every plan gets the same data, model and number of samples unless it says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfd.cli.dealing import pretrained, public_address, residents_of
from mfd.cli.errors import Misuse
from mfd.cli.fit import check_table, head_width
from mfd.packet.plan import MODES

if TYPE_CHECKING:
    from mfd.cli.comparing import Order
    from mfd.learn.holdings import Holding
    from mfd.learn.options import Options, Sharing

__all__ = ["ALONE", "LABEL", "entries", "fitted"]

ALONE = ("centralised", "local", "alone")  # modes in which nothing travels
PLAIN = {"distill": 0.0, "anchor": 0.0, "replay": 0.0}  # of baselines: what helps not to forget
BLOCKWISE = ("order", "layers_per_stop", "full_laps", "body", "head", "first")  # of snakes alone
ROUNDS = 12  # of federated averaging, where the plan does not say
NAMES = {"names": ["data/train"], "verify": ["data/test"]}
PUBLIC = "data/public"  # where a plan does not name its public set
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.+-]{0,63})=(.+)", re.DOTALL)
Json = dict[str, Any]


def entries(config: Mapping[str, Any], order: Order, sample: Holding) -> Json:
    """Every plan by its label. `sample` is held-out data. Raises: Misuse."""
    found: Json = {}
    base = _base(order, config, sample)
    for text in order.plans:
        label, table = _plan(text, base, config, sample)
        check_table(_travelling(table), config["data"], sample, who=f"plan {label}: ")
        if label in found:
            raise Misuse(f"two plans are called {label!r}: write LABEL=PLAN")
        found[label] = table
    return found


def _travelling(table: Json) -> Json:
    """The same plan in a mode in which it could be sent."""
    return {**table, "mode": "walk"} if table["mode"] in ALONE else table


def _base(order: Order, config: Mapping[str, Any], sample: Holding) -> Json:
    """What all plans have unless they say otherwise."""
    from mfd.cli.plans import join_plan, parse_sets

    base: Json = {**NAMES, "task": "language" if sample.y.ndim == 2 else "classification"}
    if order.recipe and "hf" in config:
        raise Misuse("--recipe and --hf both say which model: give one")
    base["recipe"] = pretrained(config)[0] if "hf" in config else fitted(order.recipe, sample)
    told = {} if order.laps is None else {"laps": order.laps}
    return join_plan(base, parse_sets(list(order.sets)), told)


def fitted(text: str, sample: Holding) -> Json:
    """The recipe in `text`, or a usual one, with the sizes of the data. Raises: Misuse."""
    from mfd.cli.plans import parse_recipe

    language = sample.y.ndim == 2
    recipe = parse_recipe(text) if text else {}
    fit: Json = {"vocabulary": sample.classes, "length": sample.x.shape[-1]}
    if not language:
        fit = {"inputs": list(sample.x.shape[1:]), "classes": sample.classes}
    zoo = recipe.get("zoo", "transformer" if language else "cnn" if sample.x.ndim == 4 else "mlp")
    return {"zoo": zoo, **fit, **recipe}


def _pairs(text: str) -> list[str]:
    """KEY=VALUE,... one by one; a value of a list may have commas: scales=0.5,1:2 is one pair."""
    from mfd.cli.plans import LISTS

    pairs: list[str] = []
    for part in filter(None, text.split(",")):
        if "=" not in part and pairs and pairs[-1].partition("=")[0] in LISTS:
            pairs[-1] += f",{part}"
        else:
            pairs.append(part)
    return pairs


def _plan(text: str, base: Json, config: Mapping[str, Any], sample: Holding) -> tuple[str, Json]:
    """Read LABEL=PLAN, where PLAN is a file or MODE:KEY=VALUE,...; return label and whole plan."""
    from mfd.cli.plans import join_plan, make_plan, parse_sets, read_plan
    from mfd.learn.errors import LearnError
    from mfd.learn.options import Options, Sharing

    label, holders = "", len(config["holders"])
    match = NAMED.fullmatch(text)
    if match and not Path(text).exists():
        label, text = match.groups()
    if text.endswith(".toml") or Path(text).is_file():
        own, label = read_plan(Path(text)), label or Path(text).stem
    else:
        mode, _, rest = text.partition(":")
        own = join_plan({"mode": mode}, parse_sets(_pairs(rest)))
        label = label or re.sub(r"[^A-Za-z0-9_.+-]", "_", text)
    if "hf" in base["recipe"] and "recipe" in own and not {"zoo", "hf"} & set(own["recipe"]):
        own["recipe"] = {**base["recipe"], **own["recipe"]}  # adapters, or names of layers
    if not LABEL.fullmatch(label):
        raise Misuse(f"plan {text}: {label!r} is no label of letters, digits, and _.+-")
    mode = own.get("mode", "snake")
    _check_used(label, mode, own)
    table = join_plan({"laps": 6}, base, _usual(mode, base, own), own)
    table = {"min_holders": holders, "mode": mode, **table}
    if mode in ("distill", "alone") and not config.get("resident"):
        raise Misuse(f"a plan of mode {mode} teaches models of the holders: say which, --resident")
    options: Options
    try:
        if mode == "distill":
            if table["learn"].get("share") == "logits":  # a set has a name where none is said
                table["learn"] = {"public": PUBLIC, **table["learn"]}
            sharing, options = Sharing.of(table["learn"], mode)
            if shared := _shared(sharing, config, sample):
                table["recipe"] = {**shared, **own.get("recipe", {})}
        else:
            options = Options.of(table["learn"], mode)
    except LearnError as exc:
        raise Misuse(f"plan {label}: {exc}") from exc
    if options.replay and not _tells(config["data"]):
        raise Misuse(
            f"plan {label}: replay draws what holders tell of their classes, and these tell of "
            "none: add tell=classes to the address of --data"
        )
    if options.seconds:
        raise Misuse(
            f"plan {label}: seconds end a stop by this machine's clock, so no run would be like "
            "another: give epochs or steps instead"
        )
    make_plan(_travelling(table), bytes(32))
    return label, table


def _tells(address: str) -> bool:
    from mfd.learn.holdings import parse

    return "tell" in parse(address).options


def _check_used(label: str, mode: str, own: Json) -> None:
    """Raises: Misuse for a field of the plan's own that its mode does without."""
    idle = [key for key in BLOCKWISE if key in own]
    if idle and mode in (*MODES, *ALONE) and mode != "snake":
        raise Misuse(
            f"plan {label}: {idle[0]} is for plans of mode snake, which learn block by block; mode "
            f"{mode} trains all layers: leave it out"
        )


def _shared(sharing: Sharing, config: Mapping[str, Any], sample: Holding) -> Json:
    """The recipe of what a plan shares where that is no model, else {}.

    Raises: LearnError, Misuse.
    """
    count = len(_public(config, sample).x) if sharing.public else 0
    if sharing.share == "logits":  # `samples` are counted anew for each seed
        return {"zoo": "logits", "samples": count, "classes": sample.classes}
    if sharing.share == "prototypes":
        width = head_width(residents_of(config))
        return {"zoo": "prototypes", "classes": sample.classes, "width": width}
    return {}


def _public(config: Mapping[str, Any], sample: Holding) -> Holding:
    """What all holders have. Raises: Misuse where it does not fit, or is held out."""
    from mfd.learn.errors import HoldingError
    from mfd.learn.holdings import load

    address = public_address(config, int(config["seeds"][0]))
    if not address:
        raise Misuse(
            "a plan shares on a public set: say which, --public ADDRESS, or --public part for one "
            "part more of the data"
        )
    try:
        public = load(address, allow_py=True)
    except HoldingError as exc:
        raise Misuse(f"--public: {exc}") from exc
    if public.x.shape[1:] != sample.x.shape[1:]:
        raise Misuse(
            f"--public {address}: its samples have the shape {list(public.x.shape[1:])}, those "
            f"of the data {list(sample.x.shape[1:])}"
        )
    held_out = {row.tobytes() for row in sample.x}
    if twice := sum(row.tobytes() in held_out for row in public.x):
        raise Misuse(
            f"--public {address}: {twice} of its samples are held out for measuring, too: give "
            "other ones"
        )
    return public


def _usual(mode: str, base: Json, own: Json) -> Json:
    """What a baseline is given unless its plan says otherwise: as many samples.

    It keeps the adjustment by its own label counts, as the plans that travel do: under label skew
    federated averaging of few steps, and holders on their own, are far worse without.
    """
    from mfd.learn.training import DEFAULTS

    if mode in ALONE:
        return {"learn": PLAIN}
    if mode != "fedavg" or "laps" in own:
        return {"learn": PLAIN} if mode == "fedavg" else {}
    share = int(base.get("laps", 6)) / ROUNDS
    learn = {**PLAIN, "epochs": float(base["learn"].get("epochs", DEFAULTS["epochs"])) * share}
    if steps := base["learn"].get("steps"):
        learn["steps"] = max(1, round(steps * share))
    return {"laps": ROUNDS, "learn": learn}
