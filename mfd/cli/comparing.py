"""`mfd compare`: what is compared with what, written down so that it runs again.

    runs/NAME/compare.json       everything that was asked for, resolved: mfd compare --config FILE
    runs/NAME/topology.toml      the network
    runs/NAME/metrics/*.jsonl    one file a plan and seed; whole once its last line says "end"
    runs/NAME/packets/*.mfd      the models that came home
    runs/NAME/report.html        and a CSV beside each of its plots, in csv/

Rules of this file: what is finished is not run again; a line that was cut off is no line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from mfd.cli.errors import Misuse
from mfd.cli.fit import check_resident, check_table
from mfd.cli.lines import read_lines
from mfd.topology import Topology, TopologyError, dump, load, make

if TYPE_CHECKING:
    from mfd.learn.options import Options

__all__ = ["ALONE", "Cell", "Order", "Study", "open_study", "parse_seeds", "read_lines", "resolve"]

KEY, FORMAT = "mfd-compare", 1
GRAPH = "topology.toml"
ALONE = ("centralised", "local")  # modes in which nothing travels
PLAIN = {"distill": 0.0, "logit_adjustment": 0.0, "anchor": 0.0}  # these learn better without aids
ROUNDS = 12  # of federated averaging, where the plan does not say
NAMES = {"names": ["data/train"], "verify": ["data/test"]}
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.+-]{0,63})=(.+)", re.DOTALL)
SEEDS_MAX = 1_000
PARTITIONS = ("skew", "shard", "quantity", "by")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Order:
    """What a user asked for, as given."""

    plans: Sequence[str]
    data: str = ""
    test: str = ""  # address of the held-out data; "": the data's own split=test
    topology: str = "ring:5"
    partition: str = ""  # skew=0.3, shard=2, quantity=0.5, by=role; "": evenly at random
    recipe: str = ""
    resident: str = ""  # recipe of the model at each holder, which walkers of mode distill teach
    laps: int | None = None
    sets: Sequence[str] = ()
    seeds: Sequence[int] = (1,)
    samples_per_s: float = 1_000.0
    flops: float = 0.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One plan with one seed."""

    label: str
    seed: int

    def __str__(self) -> str:
        return f"{self.label}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Study:
    """A folder and what is to be in it."""

    folder: Path
    config: Mapping[str, Any]
    graph: Topology = field(repr=False)

    @property
    def cells(self) -> list[Cell]:
        """Every plan with every seed, seeds outermost: a first result of all comes soon."""
        return [
            Cell(label, seed) for seed in self.config["seeds"] for label in self.config["plans"]
        ]

    def metrics(self, cell: Cell) -> Path:
        """Where a cell writes its lines."""
        return self.folder / "metrics" / f"{cell}.jsonl"

    def digest(self, cell: Cell) -> str:
        """Names everything that decides the result of a cell."""
        shared = {k: v for k, v in self.config.items() if k not in ("plans", "seeds")}
        decides = [shared, self.config["plans"][cell.label], cell.seed]
        return str(blake3(json.dumps(decides, sort_keys=True).encode()).hexdigest())[:32]

    def outcome(self, cell: Cell) -> Json | None:
        """The last line of a cell that is finished and still means the same, else None."""
        lines = list(read_lines(self.metrics(cell)))
        whole = bool(lines) and lines[0].get("kind") == "begin" and lines[-1].get("kind") == "end"
        return lines[-1] if whole and lines[0].get("cell") == self.digest(cell) else None


def parse_seeds(text: str) -> list[int]:
    """Read 1,2,3 or 1-3. Raises: Misuse."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        first, last = (int(g) if g else None for g in match.groups()) if match else (None, None)
        if first is None or (last is not None and not first <= last < first + SEEDS_MAX):
            raise Misuse(f"--seed {text}: write 1,2,3 or 1-3")
        found += range(first, (first if last is None else last) + 1)
    return list(dict.fromkeys(found))


# what was asked for, made definite


def resolve(order: Order) -> tuple[Json, Topology]:
    """Everything that the runs depend on, as plain values. Raises: Misuse."""
    if not order.data:
        raise Misuse("say what is learned: --data sklearn:digits, or another address of data")
    if not order.plans:
        raise Misuse(
            "say what is compared: plan files or modes, such as `snake fedavg centralised`"
        )
    graph = _graph(order.topology)
    holders = [n for n, node in graph.nodes.items() if any("train" in k for k in node.hold)]
    holders = holders or [n for n, node in graph.nodes.items() if not node.custodian]
    testers = [n for n, node in graph.nodes.items() if any("test" in k for k in node.hold)]
    data, test = _apart(order)
    config: Json = {
        KEY: FORMAT,
        "data": data,
        "test": test,
        "partition": order.partition,
        "topology": GRAPH,
        "holders": holders,
        "home": (testers or holders)[0],
        "device": {"samples_per_s": order.samples_per_s, "flops": order.flops},
        "plans": {},
        "seeds": list(order.seeds),
    }
    key, _, value = order.partition.partition("=")
    if order.partition and (key not in PARTITIONS or not value):
        raise Misuse(f"--partition {order.partition}: write one of {', '.join(PARTITIONS)}=VALUE")
    if min(order.samples_per_s, order.flops + 1) <= 0:
        raise Misuse("--samples-per-s and --flops are numbers above 0")
    sample = _look(config)
    base = _base(order, sample)
    for text in order.plans:
        label, table = _plan(text, base, len(holders))
        check_table(_travelling(table), data, sample, who=f"plan {label}: ")
        if label in config["plans"]:
            raise Misuse(f"two plans are called {label!r}: write LABEL=PLAN")
        config["plans"][label] = table
    if order.resident:
        config["resident"] = _fitted(order.resident, sample)
        check_resident(config["resident"], data, sample)
    elif any(table["mode"] == "distill" for table in config["plans"].values()):
        raise Misuse("a plan of mode distill teaches models of the holders: say which, --resident")
    return config, graph


def _travelling(table: Json) -> Json:
    """The same plan in a mode in which it could be sent."""
    return {**table, "mode": "walk"} if table["mode"] in ALONE else table


def _graph(text: str) -> Topology:
    kind, _, count = text.partition(":")
    try:
        graph = make(kind, int(count)) if count.isdecimal() else load(text)
    except TopologyError as exc:
        raise Misuse(f"--topology {text}: {str(exc).removeprefix(f'{text}: ')}") from exc
    if problems := graph.check(addresses=False):
        raise Misuse(f"--topology {text}: {problems[0]}")
    return graph


def _with(address: str, *options: str) -> str:
    """An address with further options."""
    given = [option for option in options if option]
    return address + "".join(
        f"{'&' if '?' in address or i else '?'}{option}" for i, option in enumerate(given)
    )


def _apart(order: Order) -> tuple[str, str]:
    """Addresses of what is learned and of what is held out. Raises: Misuse."""
    from mfd.learn.errors import HoldingError
    from mfd.learn.holdings import parse

    if order.test:
        return order.data, order.test
    try:
        given = parse(order.data).options
    except HoldingError as exc:
        raise Misuse(str(exc)) from exc
    if "split" in given:
        raise Misuse(f"--data {order.data} names a split: say with --test what is held out")
    # roles order the text anew: what is held out must be cut from the same order
    same = order.partition if order.partition.startswith("by=") else ""
    return _with(order.data, "split=train"), _with(order.data, "split=test", same)


def part_address(config: Mapping[str, Any], number: int, seed: int) -> str:
    """The address of one holder's data, `number` from 0."""
    part = f"part={number + 1}/{len(config['holders'])}"
    return _with(config["data"], part, config["partition"], f"seed={seed}")


def _look(config: Mapping[str, Any]) -> Any:
    """Check the addresses; return the held-out data, from which a recipe learns its sizes."""
    from mfd.learn.errors import HoldingError
    from mfd.learn.holdings import check
    from mfd.learn.holdings import load as load_data

    try:
        check(part_address(config, 0, 0), allow_py=True)
        return load_data(config["test"], allow_py=True)
    except HoldingError as exc:
        raise Misuse(str(exc)) from exc


def _base(order: Order, sample: Any) -> Json:
    """What all plans have unless they say otherwise."""
    from mfd.cli.plans import join_plan, parse_sets

    base: Json = {**NAMES, "task": "language" if sample.y.ndim == 2 else "classification"}
    base["recipe"] = _fitted(order.recipe, sample)
    told = {} if order.laps is None else {"laps": order.laps}
    return join_plan(base, parse_sets(list(order.sets)), told)


def _fitted(text: str, sample: Any) -> Json:
    """The recipe in `text`, or a usual one, with the sizes of the data. Raises: Misuse."""
    from mfd.cli.plans import parse_recipe

    language = sample.y.ndim == 2
    recipe = parse_recipe(text) if text else {}
    fit = {"vocabulary": sample.classes, "length": sample.x.shape[-1]}
    if not language:
        fit = {"inputs": list(sample.x.shape[1:]), "classes": sample.classes}
    zoo = recipe.get("zoo", "transformer" if language else "cnn" if sample.x.ndim == 4 else "mlp")
    return {"zoo": zoo, **fit, **recipe}


def _plan(text: str, base: Json, holders: int) -> tuple[str, Json]:
    """Read LABEL=PLAN, where PLAN is a file or MODE:KEY=VALUE,...; return label and whole plan."""
    from mfd.cli.plans import join_plan, make_plan, parse_sets, read_plan
    from mfd.learn.errors import LearnError
    from mfd.learn.training import Options

    label = ""
    match = NAMED.fullmatch(text)
    if match and not Path(text).exists():
        label, text = match.groups()
    if text.endswith(".toml") or Path(text).is_file():
        own, label = read_plan(Path(text)), label or Path(text).stem
    else:
        mode, _, rest = text.partition(":")
        own = join_plan({"mode": mode}, parse_sets([pair for pair in rest.split(",") if pair]))
        label = label or re.sub(r"[^A-Za-z0-9_.+-]", "_", text)
    if not LABEL.fullmatch(label):
        raise Misuse(f"plan {text}: {label!r} is no label of letters, digits, and _.+-")
    mode = own.get("mode", "snake")
    table = join_plan({"laps": 6}, base, _usual(mode, base, own), own)
    table = {"min_holders": holders, "mode": mode, **table}
    try:
        options = _shared(table["learn"]) if mode == "distill" else Options.of(table["learn"], mode)
    except LearnError as exc:
        raise Misuse(f"plan {label}: {exc}") from exc
    if options.seconds:
        raise Misuse(
            f"plan {label}: seconds end a stop by this machine's clock, so no run would be like "
            "another: give epochs or steps instead"
        )
    make_plan(_travelling(table), bytes(32))
    return label, table


def _shared(learn: Mapping[str, Any]) -> Options:
    """Options of a plan that teaches residents. Raises: LearnError."""
    from mfd.learn.errors import LearnError
    from mfd.learn.options import Sharing

    sharing, options = Sharing.of(learn, "distill")
    if sharing.share != "proxy" or sharing.public:
        raise LearnError(
            'compare runs distill with share = "proxy" and without public: only a proxy answers '
            "held-out samples, and there is no public set beside the data"
        )
    return options


def _usual(mode: str, base: Json, own: Json) -> Json:
    """What a baseline is given unless its plan says otherwise: as many samples, no aids."""
    from mfd.learn.training import DEFAULTS

    if mode in ALONE:
        return {"learn": PLAIN}
    if mode != "fedavg" or "laps" in own:
        return {"learn": PLAIN} if mode == "fedavg" else {}
    laps = int(base.get("laps", 6))
    epochs = float(base["learn"].get("epochs", DEFAULTS["epochs"])) * laps / ROUNDS
    return {"laps": ROUNDS, "learn": {**PLAIN, "epochs": epochs}}


# the folder


def open_study(folder: Path, config: Json | None = None, graph: Topology | None = None) -> Study:
    """Begin or go on: plans and seeds add up, all else must be as it was. Raises: Misuse."""
    path = folder / "compare.json"
    known = _read(path) if path.exists() else None
    if config is None or graph is None:
        if known is None:
            raise Misuse(f"{folder} holds no comparison: there is no {path.name} in it")
        return Study(folder, known, _graph(str(folder / known["topology"])))
    if known is not None:
        config = _joined(known, config, folder)
    for part in ("metrics", "packets"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    drafts = folder / f".{os.getpid()}.toml"
    dump(graph, drafts, comment="Written by mfd compare.")
    text = drafts.read_bytes()
    at = folder / config["topology"]
    if known is not None and at.exists() and at.read_bytes() != text:
        drafts.unlink()
        raise Misuse(f"{folder} holds a comparison on another network: give another --name")
    drafts.replace(at)
    draft = folder / f".{os.getpid()}.json"
    draft.write_text(json.dumps(config, indent=1) + "\n")
    draft.replace(path)
    return Study(folder, config, load(at))


def _read(path: Path) -> Json:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else f"it is not JSON: {exc}"
        raise Misuse(f"{path} cannot be read: {why}") from exc
    if not isinstance(found, dict) or found.get(KEY) != FORMAT:
        raise Misuse(f"{path} was not written by mfd compare")
    if wrong := _wrong(found):
        raise Misuse(f"{path} was not written by mfd compare: {wrong}")
    return found


def _wrong(config: Json) -> str:
    """What mfd compare would not have written; it may come from somebody else, and names files."""
    plans, seeds, holders = (config.get(key) for key in ("plans", "seeds", "holders"))
    if config.get("topology") != GRAPH:
        return f"its topology is not {GRAPH}"
    if not isinstance(plans, dict) or not all(isinstance(table, dict) for table in plans.values()):
        return "its plans are not tables"
    if odd := next((label for label in plans if not LABEL.fullmatch(label)), None):
        return f"{odd!r} is no label of a plan"
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
        return "its seeds are not whole numbers"
    if not isinstance(holders, list) or not all(isinstance(name, str) for name in holders):
        return "its holders are not names"
    words = ("data", "test", "partition", "home")
    if not all(isinstance(config.get(key), str) for key in words):
        return f"one of {', '.join(words)} is no text"
    return ""


def read_config(path: Path, *, allow_py: bool = False) -> tuple[Json, Topology]:
    """A comparison written down before, perhaps by somebody else. Raises: Misuse."""
    config = _read(path)
    code = next((config[key] for key in ("data", "test") if config[key].startswith("py:")), "")
    if code and not allow_py:
        raise Misuse(f"{path} runs code of yours, {code}: say so with --allow-py")
    return config, _graph(str(path.parent / str(config["topology"])))


def _joined(known: Json, config: Json, folder: Path) -> Json:
    for key in config:
        if key not in ("plans", "seeds") and known.get(key) != config[key]:
            raise Misuse(
                f"{folder} holds a comparison with {key} {known.get(key)!r}, not "
                f"{config[key]!r}: give another --name"
            )
    plans = {**known["plans"]}
    for label, table in config["plans"].items():
        if plans.setdefault(label, table) != table:
            raise Misuse(
                f"{folder} has another plan {label!r}: call this one LABEL=PLAN, or give "
                "another --name"
            )
    seeds = sorted({*known["seeds"], *config["seeds"]})
    return {**known, "plans": plans, "seeds": seeds}
