"""One cell of a comparison: a plan and a seed, run to its end and written down line by line.

    {"kind": "begin", ...}       what it is, whose data it has
    {"kind": "work", ...}        a node trained, measured or merged
    {"kind": "stop" | ...}       news of the walker where it happens
    {"kind": "measured", ...}    accuracy on held-out data, and all that was spent until then
    {"kind": "end", ...}         totals

Rules of this file: the same cell gives the same lines, but for `cpu_seconds` at the end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import mfd
from mfd.cli.comparing import ALONE, Cell, Json, Study, part_address
from mfd.cli.errors import CommandError
from mfd.trial import RunError

if TYPE_CHECKING:
    from torch import nn

    from mfd.core.effects import Report
    from mfd.learn.holdings import Holding
    from mfd.packet.packet import Packet
    from mfd.trial import Costs, Device, Trial, Work

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

    def save(self, packet: Packet, suffix: str = "") -> str:
        """Write a packet; return its path within the study."""
        from mfd.cli.saving import write_whole
        from mfd.packet.packet import encode

        path = Path("packets") / f"{self.cell}{suffix}.mfd"
        write_whole(self.study.folder / path, encode(packet))
        return str(path)


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
    module = build(table["recipe"], seed=cell.seed)
    costs = _costs(table, module, test) if config["device"]["flops"] else None
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
    )
    device = Device(**config["device"], costs=costs)
    return Setting(study, cell, table, parts, test, module, device, lines)


def _costs(table: Mapping[str, Any], module: nn.Module, test: Holding) -> Costs:
    """Work of the model, and of the versions inside it that weak nodes may train."""
    from mfd.learn.flops import forward_flops, part_flops
    from mfd.packet.scales import parse_scale
    from mfd.trial import Costs

    scales = [parse_scale(text) for text in table.get("scales", ())]
    return Costs(forward_flops(module, test), part_flops(table["recipe"], scales, test))


def _alone(setting: Setting) -> Json:
    from mfd.cli.baselines import learn_centralised, learn_locally

    learn = learn_centralised if setting.table["mode"] == "centralised" else learn_locally
    return learn(setting)


def _travel(setting: Setting) -> Json:
    """Let the walker go its way through the simulated network."""
    from mfd.cli.plans import make_plan
    from mfd.learn.layers import find_layers, pack
    from mfd.trial import Trial

    table, home = setting.table, setting.study.config["home"]
    held: dict[str, dict[str, Holding]] = {
        name: {table["names"][0]: part} for name, part in setting.parts.items()
    }
    held.setdefault(home, {})[table["verify"][0]] = setting.test
    trial = Trial(
        setting.study.graph,
        held,
        seed=setting.cell.seed,
        device=setting.device,
        real_keys=True,
        residents=_residents(setting),
    )
    trial.on_work = lambda work: _write_work(setting.lines, work)
    trial.on_news = lambda node, second, report: _write_news(setting, trial, (node, second, report))
    plan = make_plan(table, trial.world.hosts[home].key.public_key)
    module = setting.module
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


def _residents(setting: Setting) -> dict[str, nn.Module]:
    """A model of its own for every holder, where the plan teaches such models."""
    from mfd.cli.sending import build

    if setting.table["mode"] != "distill":
        return {}
    recipe, seed = setting.study.config["resident"], setting.cell.seed
    return {
        name: build(recipe, seed=seed * 1_000 + number)
        for number, name in enumerate(setting.parts, 1)
    }


def _taught(setting: Setting, trial: Trial) -> Json:
    """Held-out accuracy of the residents, one by one and on average; nothing where none live."""
    from mfd.learn.training import measure

    found = {n: measure(m, setting.test)["accuracy"] for n, m in trial.taught().items()}
    if not found:
        return {}
    return {"residents": found, "residents_accuracy": sum(found.values()) / len(found)}


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
    setting.lines.write(report.kind, **told)
