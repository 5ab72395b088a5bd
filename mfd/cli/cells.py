"""One cell of a comparison: a plan and a seed, run to its end and written down line by line.

    {"kind": "begin", ...}       what it is, whose data it has
    {"kind": "work", ...}        a node trained, measured or merged
    {"kind": "stop" | ...}       news of the walker where it happens
    {"kind": "measured", ...}    accuracy on held-out data, and all that was spent until then
    {"kind": "end", ...}         totals

Rules of this file: the same cell gives the same lines, but for `cpu_seconds` at the end.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import mfd
from mfd.cli.comparing import Cell, Json, Study
from mfd.cli.dealing import part_address, pretrained, public_address, residents_of
from mfd.cli.entries import ALONE
from mfd.cli.errors import CommandError
from mfd.trial import Costs, RunError

if TYPE_CHECKING:
    from torch import nn

    from mfd.core.effects import Report
    from mfd.learn.holdings import Holding
    from mfd.packet.packet import Packet
    from mfd.trial import Device, Trial, Work

__all__ = ["Lines", "Setting", "run_cell"]


class Lines:
    """The file of a cell: begun anew, a line at a time, each of them at once on its way to disk."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, kind: str, **values: Any) -> None:
        """Add a line."""
        self._file.write(json.dumps({"kind": kind, **values}) + "\n")
        self._file.flush()


@dataclass(frozen=True, slots=True)
class Setting:
    """What a cell starts from."""

    study: Study
    cell: Cell
    table: Mapping[str, Any]  # the plan
    parts: Mapping[str, Holding]  # holder -> its data
    test: Holding
    module: nn.Module  # with its first values
    device: Device
    lines: Lines
    public: Holding | None = None  # what all holders have
    kinds: Mapping[str, Json] = field(default_factory=dict)  # holder -> recipe of its own model

    def resident(self, name: str) -> nn.Module:
        """A holder's own model before any lesson."""
        from mfd.cli.sending import build

        number = list(self.kinds).index(name) + 1
        return build(self.kinds[name], seed=self.cell.seed * 1_000 + number)

    def of_resident(self, name: str) -> Setting:
        """The same with the model of one holder in place of the one that travels."""
        module = self.resident(name)
        table = {**self.table, "recipe": self.kinds[name]}
        costs = _costs(table, module, self.test) if self.device.flops else None
        device = replace(self.device, costs=costs)
        return replace(self, table=table, module=module, device=device)

    def save(self, packet: Packet, suffix: str = "") -> str:
        """Write a packet; return its path within the study."""
        from mfd.cli.saving import write_whole
        from mfd.packet.packet import encode

        path = Path("packets") / f"{self.cell}{suffix}.mfd"
        write_whole(self.study.folder / path, encode(packet))
        return str(path)


def is_table(table: Mapping[str, Any]) -> bool:
    """Whether what travels is no model, so that the residents' answers are what counts."""
    from mfd.learn.zoo import TABLES

    return table["recipe"].get("zoo") in TABLES


def run_cell(study: Study, cell: Cell) -> Json:
    """Run a cell from its beginning; return its last line.

    A run that fails ends in a line "failed" with the reason, and is tried again next time.
    """
    with study.metrics(cell).open("w", encoding="utf-8") as file:
        lines = Lines(file)
        started = time.process_time()
        try:
            setting = _set(study, cell, lines)
            ended = _alone(setting) if setting.table["mode"] in ALONE else _travel(setting)
        except (RunError, ValueError, CommandError) as exc:
            last = {"reason": str(exc)}
            lines.write("failed", **last)
            return {"kind": "failed", **last}
        ended["cpu_seconds"] = round(time.process_time() - started, 2)
        lines.write("end", **ended)
        return {"kind": "end", **ended}


def _set(study: Study, cell: Cell, lines: Lines) -> Setting:
    """Load the data, make the model, write the first line."""
    import torch

    from mfd.cli.sending import build
    from mfd.learn.holdings import load
    from mfd.learn.layers import find_layers
    from mfd.trial import Device

    torch.set_num_threads(1)
    config = study.config
    table = {**config["plans"][cell.label], "seed": cell.seed}
    parts = {
        name: load(part_address(config, i, cell.seed), allow_py=True)
        for i, name in enumerate(config["holders"])
    }
    test = load(config["test"], allow_py=True)
    at = public_address(config, cell.seed)
    public = load(at, allow_py=True) if at else None
    if table["recipe"].get("zoo") == "logits" and public is not None:
        table["recipe"] = {**table["recipe"], "samples": len(public.x)}  # parts differ by seed
    if "hf" in config and "hf" in table["recipe"]:
        module = pretrained(config, table["recipe"], cell.seed)[1]
    else:
        module = build(table["recipe"], seed=cell.seed)
    costs = _costs(table, module, test) if config["device"]["flops"] else None
    kinds = dict(zip(config["holders"], residents_of(config), strict=False))
    lines.write(
        "begin",
        cell=study.digest(cell),
        label=cell.label,
        seed=cell.seed,
        plan=table,
        software=f"mfd {mfd.__version__}",
        torch=torch.__version__,
        layers=[
            [layer.name, sum(module.state_dict()[key].nbytes for key in layer.tensors)]
            for layer in find_layers(module)
        ],
        peers={
            name: {"samples": len(h.x), "labels": h.labels(), "raw_bytes": h.raw_bytes}
            for name, h in parts.items()
        },
        flops=list(costs.layers) if costs else [],
        exit_flops=list(costs.exits) if costs else [],
    )
    device = Device(**config["device"], costs=costs)
    return Setting(study, cell, table, parts, test, module, device, lines, public, kinds)


def _costs(table: Mapping[str, Any], module: nn.Module, test: Holding) -> Costs:
    """Work of the model, and of the versions inside it that weak nodes may train."""
    from mfd.learn.flops import costs_of, part_costs
    from mfd.learn.options import Sharing
    from mfd.packet.scales import parse_scale

    if is_table(table):
        return Costs((0.0,))
    scales = [parse_scale(text) for text in table.get("scales", ())]
    costs = costs_of(module, test, Sharing.of(table["learn"])[1])
    return replace(costs, parts=part_costs(table["recipe"], scales, test)) if scales else costs


def _lesson(setting: Setting, residents: Mapping[str, nn.Module]) -> Device:
    """The device, which counts work of residents where a plan teaches them."""
    from mfd.learn.flops import costs_of
    from mfd.learn.options import Sharing
    from mfd.trial import Lesson

    device, test = setting.device, setting.test
    if device.costs is None or not residents:
        return device
    sharing, _ = Sharing.of(setting.table["learn"])
    lesson = Lesson(
        sharing.share,
        {name: costs_of(module, test) for name, module in residents.items()},
        public=len(setting.public.x) if sharing.public and setting.public is not None else 0,
        answered=bool(sharing.public) or test.x.dtype.kind == "f",  # invented of pictures alone
    )
    return replace(device, costs=replace(device.costs, lesson=lesson))


def _alone(setting: Setting) -> Json:
    from mfd.cli.baselines import learn_centralised, learn_locally

    learn = learn_centralised if setting.table["mode"] == "centralised" else learn_locally
    return learn(setting)


def _travel(setting: Setting) -> Json:
    """Let the walker go its way through the simulated network."""
    from mfd.cli.models import with_base
    from mfd.cli.plans import make_plan
    from mfd.learn.layers import find_layers, pack
    from mfd.trial import Trial

    table, home = setting.table, setting.study.config["home"]
    held: dict[str, dict[str, Holding]] = {
        name: {table["names"][0]: part} for name, part in setting.parts.items()
    }
    held.setdefault(home, {})[table["verify"][0]] = setting.test
    residents = _residents(setting)
    trial = Trial(
        setting.study.graph,
        held,
        seed=setting.cell.seed,
        device=_lesson(setting, residents),
        real_keys=True,
        residents=residents,
        common=_common(setting),
        choose=str(table.get("choose", "")),
    )
    trial.on_work = lambda work: _write_work(setting.lines, work)
    trial.on_news = lambda node, second, report: _write_news(setting, trial, (node, second, report))
    module = setting.module
    plan = with_base(make_plan(table, trial.world.hosts[home].key.public_key), module)
    layers = [(layer.name, pack(module, layer)) for layer in find_layers(module)]
    trial.bring_home(trial.send(plan, layers))
    packet = trial.packet(plan)
    tally = trial.tally
    return {
        **_spent(trial),
        **_measured(setting, packet),
        **_taught(setting, trial),
        "second": round(trial.world.now_us / 1e6, 6),
        "packets": [setting.save(packet)],
        "digest": packet.manifest.layers[-1].digest.hex()[:16],
        "by_link": [[a, b, size] for (a, b), size in sorted(tally.by_link.items())],
        "received": dict(sorted(tally.received.items())),
        "stored": dict(sorted(tally.store_bytes.items())),
    }


def _common(setting: Setting) -> dict[str, Holding]:
    """The public set, by the name that the plan has for it."""
    name = setting.table["learn"].get("public", "") if setting.table["mode"] == "distill" else ""
    return {name: setting.public} if name and setting.public is not None else {}


def _residents(setting: Setting) -> dict[str, nn.Module]:
    """A model of its own for every holder, where the plan teaches such models.

    Home has one, too, where only residents can answer what is held out there: it is not taught.
    """
    if setting.table["mode"] != "distill":
        return {}
    found = {name: setting.resident(name) for name in setting.parts}
    home = setting.study.config["home"]
    if is_table(setting.table) and home not in found:
        found[home] = copy.deepcopy(next(iter(found.values())))
    return found


def _taught(setting: Setting, trial: Trial) -> Json:
    """Held-out accuracy of the residents, one by one and on average; nothing where none live.

    Where no model travels, the residents' mean accuracy and loss are those of the plan.
    """
    from mfd.learn.training import measure

    found = {n: measure(m, setting.test) for n, m in trial.taught().items() if n in setting.parts}
    if not found:
        return {}
    accuracy, loss = (
        sum(one[key] for one in found.values()) / len(found) for key in ("accuracy", "loss")
    )
    told = {n: one["accuracy"] for n, one in found.items()}
    plan = {"accuracy": accuracy, "loss": loss} if is_table(setting.table) else {}
    return {"residents": told, "residents_accuracy": accuracy, **plan}


def _spent(trial: Trial) -> Json:
    tally = trial.tally
    return {
        "stops": tally.stops,
        "samples": tally.samples,
        "links_bytes": tally.links_bytes,
        "objects_bytes": tally.objects_bytes,
    }


def _measured(setting: Setting, packet: Packet) -> Json:
    """Accuracy and loss of what came home, on all held-out samples."""
    from mfd.learn.layers import find_layers, load
    from mfd.learn.training import measure

    for layer, ref in zip(find_layers(setting.module), packet.manifest.layers, strict=True):
        load(setting.module, layer, packet.object(ref.digest))
    if is_table(setting.table):
        return {}
    found = measure(setting.module, setting.test)
    return {"accuracy": found["accuracy"], "loss": found["loss"]}


def _write_work(lines: Lines, work: Work) -> None:
    told = ("loss_before", "loss", "accuracy", "width", "depth", "bits")  # the last of a part
    claims = {k: work.claims[k] for k in told if k in work.claims}
    values = {k: v for k, v in asdict(work).items() if k not in ("kind", "claims")}
    lines.write("work", task=work.kind, **values, **claims)


def _write_news(setting: Setting, trial: Trial, news: tuple[str, float, Report]) -> None:
    node, second, report = news
    told = {k: v for k, v in trial.plain(report).items() if isinstance(v, str | int | float)}
    walker = str(report.fields["walker"])[:8]
    told = {**told, "peer": node, "second": round(second, 6), "walker": walker}
    if report.kind == "measured":
        told |= _spent(trial)
        if is_table(setting.table):  # home has measured its own resident
            told |= {k: v for k, v in _taught(setting, trial).items() if k in told}
    setting.lines.write(report.kind, **told)
