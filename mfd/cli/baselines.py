"""Learning without a network: on all data in one place, and everybody on their own.

Rules of this file: the same model, first values, learner, options and number of samples as the
plans that travel; held-out accuracy is measured after as many samples as a lap has.

* centralised: counts the bytes of the samples that would have to travel home, as they are stored,
  once from holder to home and once for every link on the shortest way; it learns when the last of
  them is there, each holder's at the rate of the slowest link on that way.
* local: nothing travels. Accuracy is the mean over holders of what each reaches with its own data.
* alone: as local, but each holder trains its resident, as it is before plans of mode distill teach
  it; its device and its memory are those of the resident.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mfd.learn.holdings import Holding
from mfd.topology import Topology

if TYPE_CHECKING:
    from torch import nn

    from mfd.cli.cells import Setting
    from mfd.packet.packet import Packet
    from mfd.packet.task import LearnTask

__all__ = ["learn_centralised", "learn_locally"]

LINK_LATENCY_US = 1_000  # as in mfd.trial, where the topology does not say
LINK_BYTES_PER_S = 125e6
Json = dict[str, Any]
Found = list[dict[str, float]]


def learn_centralised(setting: Setting) -> Json:
    """Train on the pooled data; return the last line of the cell."""
    parts = list(setting.parts.values())
    pooled = Holding(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.y for part in parts]),
        parts[0].classes,
    )
    home = setting.study.config["home"]
    ways = _ways(setting.study.graph, home)
    sizes = {name: part.raw_bytes for name, part in setting.parts.items() if name != home}
    spent = {
        "links_bytes": sum(size * ways[name][0] for name, size in sizes.items()),
        "objects_bytes": sum(sizes.values()),
    }
    waited = max(
        (ways[name][1] + size / ways[name][2] for name, size in sizes.items()), default=0.0
    )
    module, found, total = _learn(setting, pooled)
    seconds = _seconds(setting, total, len(pooled.x), setting.study.graph.nodes[home].speed)
    laps = len(found)
    for lap, each in enumerate(found, 1):
        setting.lines.write(
            "measured",
            second=waited + seconds * lap / laps,
            lap=lap,
            stops=lap,
            samples=total * lap / laps,
            accuracy=each["accuracy"],
            loss=each["loss"],
            by=home,
            **spent,
        )
    return {
        **spent,
        "stops": laps,
        "samples": total,
        "second": waited + seconds,
        "accuracy": found[-1]["accuracy"],
        "loss": found[-1]["loss"],
        "packets": [setting.save(_packet(setting, module))],
        "state_bytes": {home: _state_bytes(setting)},
        "raw": True,
    }


def learn_locally(setting: Setting) -> Json:
    """Train a model at each holder on its own data; return the last line of the cell."""
    graph, whole = setting.study.graph, setting
    runs: dict[str, Found] = {}
    packets: list[str] = []
    seconds = total = 0.0
    states: dict[str, int] = {}
    for name, part in whole.parts.items():
        setting = whole if whole.table["mode"] == "local" else whole.of_resident(name)
        module, runs[name], samples = _learn(setting, part)
        states[name] = _state_bytes(setting)
        packets.append(setting.save(_packet(setting, module), f".{len(packets) + 1}"))
        taken = _seconds(setting, samples, len(part.x), graph.nodes[name].speed)
        seconds, total = max(seconds, taken), total + samples
    laps = min(map(len, runs.values()))
    for lap in range(1, laps + 1):
        each = [found[lap - 1] for found in runs.values()]
        setting.lines.write(
            "measured",
            second=seconds * lap / laps,
            lap=lap,
            stops=lap * len(runs),
            samples=total * lap / laps,
            accuracy=float(np.mean([e["accuracy"] for e in each])),
            loss=float(np.mean([e["loss"] for e in each])),
            least=min(e["accuracy"] for e in each),
            most=max(e["accuracy"] for e in each),
            links_bytes=0,
            objects_bytes=0,
        )
    final = {name: found[-1] for name, found in runs.items()}
    reached = {name: e["accuracy"] for name, e in final.items()}
    taught: Json = {}
    if whole.table["mode"] == "alone":
        taught = {"residents": reached, "residents_accuracy": float(np.mean([*reached.values()]))}
    return {
        "links_bytes": 0,
        "objects_bytes": 0,
        "stops": laps * len(runs),
        "samples": total,
        "second": seconds,
        "accuracy": float(np.mean([e["accuracy"] for e in final.values()])),
        "loss": float(np.mean([e["loss"] for e in final.values()])),
        "by_holder": reached,
        **taught,
        "packets": packets,
        "state_bytes": states,
    }


def _learn(setting: Setting, holding: Holding) -> tuple[nn.Module, Found, float]:
    """Train a copy of the model without a break, and measure it after every lap's samples.

    Returns the model, what was measured, and the number of samples seen.
    """
    from mfd.learn.training import measure, train

    module = copy.deepcopy(setting.module)
    laps = int(setting.table["laps"])
    found: Found = []

    def look(done: float) -> None:
        while len(found) < laps - 1 and done >= (len(found) + 1) / laps:
            modes = [(each, each.training) for each in module.modules()]
            found.append(measure(module, setting.test))
            for each, training in modes:
                each.training = training

    claims = train(
        module,
        holding,
        trained=_whole(module),
        options=_options(setting),
        seed=setting.cell.seed,
        progress=look,
    )
    found.append(measure(module, setting.test))
    return module, found, claims["samples"]


def _whole(module: nn.Module) -> tuple[tuple[int, int], ...]:
    """All layers that learn: the base of adapters does not, here as on the way."""
    from mfd.learn.layers import find_layers, free_ranges

    layers = find_layers(module)
    return free_ranges(((0, len(layers)),), layers)


def _options(setting: Setting) -> Any:
    """The plan's options, with the local work of all laps in one go."""
    from mfd.learn.training import DEFAULTS, Options

    learn, laps = dict(setting.table["learn"]), int(setting.table["laps"])
    for key in ("epochs", "steps", "seconds"):
        learn[key] = learn.get(key, DEFAULTS[key]) * laps
    return Options.of(learn)


def _task(setting: Setting) -> LearnTask:
    from mfd.learn.layers import pack_model
    from mfd.packet.task import LearnTask

    return LearnTask("train", b"", tuple(ref for ref, _ in pack_model(setting.module)))


def _seconds(setting: Setting, samples: float, held: float, speed: float) -> float:
    task, whole = _task(setting), _whole(setting.module)
    return setting.device.seconds(task, whole, samples, held=held) / speed


def _state_bytes(setting: Setting) -> int:
    from mfd.trial import state_bytes

    return state_bytes(_task(setting), _whole(setting.module), setting.table["learn"])


def _packet(setting: Setting, module: nn.Module) -> Packet:
    """A packet that was born trained."""
    from mfd.cli.plans import make_plan
    from mfd.core.birth import bear
    from mfd.learn.layers import find_layers, pack
    from mfd.packet.manifest import decode_manifest
    from mfd.packet.objects import wrap_object
    from mfd.packet.packet import Packet
    from mfd.sim.keys import Signatures

    key = Signatures(real=True).key(b"user")
    plan = make_plan({**setting.table, "mode": "walk"}, key.public_key)
    layers = [(layer.name, pack(module, layer)) for layer in find_layers(module)]
    birth = bear(plan, layers, key, nonce=setting.cell.seed.to_bytes(16, "little"))
    event = birth.event
    manifest = decode_manifest(event.manifest)
    objects = {item.digest: item for item in birth.objects}
    objects[manifest.plan] = wrap_object(event.plan)
    return Packet(manifest, event.manifest, event.signature, objects)


def _ways(graph: Topology, home: str) -> Mapping[str, tuple[int, float, float]]:
    """For each node the hops of the shortest way home, its latency in s and its slowest bytes/s."""
    linked: dict[str, list[tuple[str, float, float]]] = {name: [] for name in graph.nodes}
    for edge in graph.edges:
        rate = edge.bandwidth_bps / 8 if edge.bandwidth_bps else LINK_BYTES_PER_S
        latency = (edge.latency_us or LINK_LATENCY_US) / 1e6
        linked[edge.a].append((edge.b, latency, rate))
        linked[edge.b].append((edge.a, latency, rate))
    found = {home: (0, 0.0, float("inf"))}
    queue = deque([home])
    while queue:
        here = queue.popleft()
        hops, late, slowest = found[here]
        for other, latency, rate in linked[here]:
            if other not in found:
                found[other] = (hops + 1, late + latency, min(slowest, rate))
                queue.append(other)
    return found
