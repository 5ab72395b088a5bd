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
from typing import Any

from blake3 import blake3

from mfd.cli.dealing import part_address, pretrained_at, with_options
from mfd.cli.entries import LABEL, entries, fitted
from mfd.cli.errors import Misuse
from mfd.cli.fit import check_resident
from mfd.cli.lines import read_lines
from mfd.topology import Topology, TopologyError, dump, load, make

__all__ = ["Cell", "Order", "Study", "open_study", "parse_seeds", "read_lines", "resolve"]

KEY, FORMAT = "mfd-compare", 1
GRAPH = "topology.toml"
SEEDS_MAX = 1_000
PARTITIONS = ("skew", "shard", "quantity", "by")
DEALT = ("part", "seed", *PARTITIONS)  # options of addresses that a comparison sets
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
    hf: Path | None = None  # a model of Hugging Face with its values, instead of a recipe
    head: str | None = None  # of it, where its configuration does not say
    residents: Sequence[str] = ()  # recipes of the models at holders, in turn, for mode distill
    public: str = ""  # address of samples that all holders have, labels unused; or "part"
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
    if order.public:
        config["public"] = order.public  # before the data is looked at: it may be a part of it
    sample = _look(config)
    if order.hf is not None:
        config["hf"] = pretrained_at(order.hf, order.head, sample.classes)
    if order.residents:
        found = [fitted(text, sample) for text in order.residents]
        for recipe in found:
            check_resident(recipe, data, sample)
        config["resident"] = found if len(found) > 1 else found[0]
    config["plans"] = entries(config, order, sample)
    return config, graph


def _graph(text: str) -> Topology:
    kind, _, count = text.partition(":")
    try:
        graph = make(kind, int(count)) if count.isdecimal() else load(text)
    except TopologyError as exc:
        raise Misuse(f"--topology {text}: {str(exc).removeprefix(f'{text}: ')}") from exc
    if problems := graph.check(addresses=False):
        raise Misuse(f"--topology {text}: {problems[0]}")
    return graph


def _apart(order: Order) -> tuple[str, str]:
    """Addresses of what is learned and of what is held out. Raises: Misuse."""
    from mfd.learn.errors import HoldingError
    from mfd.learn.holdings import parse

    try:
        given = parse(order.data).options
    except HoldingError as exc:
        raise Misuse(str(exc)) from exc
    if own := next((key for key in DEALT if key in given), ""):
        raise Misuse(
            f"--data {order.data} says {own}, and a comparison deals the data out itself: leave "
            "it out, and give --partition and --seed"
        )
    if order.test == order.data:
        raise Misuse(f"--test {order.test} is what is learned: give other samples")
    if order.test:
        return order.data, order.test
    if "split" in given:
        raise Misuse(f"--data {order.data} names a split: say with --test what is held out")
    # roles order the text anew: what is held out must be cut from the same order
    same = order.partition if order.partition.startswith("by=") else ""
    return with_options(order.data, "split=train"), with_options(order.data, "split=test", same)


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
    if not isinstance(config.get("hf", {"place": ""}).get("place"), str):
        return "its model of Hugging Face has no place"
    if not isinstance(config.get("public", ""), str):
        return "its public set is no address"
    residents = config.get("resident", {})
    kinds = residents if isinstance(residents, list) else [residents]
    if not all(isinstance(recipe, dict) for recipe in kinds):
        return "its residents are no recipes"
    return ""


def read_config(path: Path, *, allow_py: bool = False) -> tuple[Json, Topology]:
    """A comparison written down before, perhaps by somebody else. Raises: Misuse."""
    config = _read(path)
    places = [config[key] for key in ("data", "test", "public") if key in config]
    code = next((place for place in places if place.startswith("py:")), "")
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
