"""The verbs that only look: status, peers, routes, layers."""

from __future__ import annotations

from typing import Any

from mfd.cli.client import Client
from mfd.cli.view import brief, data_size, print_json, print_table, span

__all__ = ["layers", "peers", "routes", "status"]

Json = dict[str, Any]
COSTS_PER_MS = 100  # a metric counts 10 us


def status(client: Client, *, as_json: bool) -> None:
    """Print the state of a peer."""
    told = client.get("status")
    if as_json:
        print_json(told)
        return
    holdings = ", ".join(f"{name} ({n} samples)" for name, n in told["holdings"].items())
    facts = {
        "peer": told["peer"],
        "join": told["join"],
        "network": told["network"],
        "up": span(told["uptime_s"]),
        "holds": holdings or "nothing: a relay",
        "links": len(told["links"]),
        "routes": len(told["routes"]),
        "carried": data_size(sum(told["bytes"].values())),
        "store": f"{told['objects']} objects, {told['store']}",
    }
    for name, value in facts.items():
        print(f"{name:<8} {value}")
    if told["walkers"]:
        print()
        _print_walkers(told["walkers"])


def _print_walkers(walkers: list[Json]) -> None:
    print_table(
        ("walker", "mode", "role", "lap", "hop", "version", "activity"),
        (
            (
                brief(w["walker"]),
                w["mode"],
                w["role"],
                f"{min(w['lap'] + 1, w['laps'])}/{w['laps']}",
                w["hop"],
                w["seq"],
                w["activity"],
            )
            for w in walkers
        ),
        "no walkers",
    )


def peers(client: Client, *, as_json: bool) -> None:
    """Print the links of a peer."""
    told = client.get("peers")
    if as_json:
        print_json(told)
        return
    print_table(
        ("peer", "address", "dialled", "cost", "silent"),
        (
            (
                brief(link["peer"]),
                link["address"],
                "here" if link["outbound"] else "there",
                _ms(link["cost"]),
                span(link["silent_us"] / 1e6),
            )
            for link in told["peers"]
        ),
        "no links: this peer is alone; join another with --join",
    )


def routes(client: Client, *, as_json: bool) -> None:
    """Print the routes of a peer."""
    told = client.get("routes")
    if as_json:
        print_json(told)
        return
    print_table(
        ("data", "holder", "via", "metric", "hops", "samples"),
        (
            (
                brief_name(route["name"]),
                brief(route["holder"]),
                brief(route["via"]) or "this peer",
                _ms(route["metric"]),
                route["hops"],
                route["samples"],
            )
            for route in told["routes"]
        ),
        "no routes: no holder of data is known here",
    )


def brief_name(name: str) -> str:
    """A data name; that of a peer itself, `@` and its id, is shortened."""
    return "@" + brief(name[1:]) if name.startswith("@") else name


def layers(recipe: str, *, as_json: bool) -> None:
    """Print the layers of a model and what each weighs."""
    from mfd.cli.plans import parse_recipe
    from mfd.cli.sending import build

    module = build(parse_recipe(recipe))
    from mfd.learn.layers import find_layers, pack

    state = module.state_dict()
    rows = [
        {
            "index": layer.index,
            "name": layer.name,
            "tensors": len(layer.tensors),
            "parameters": sum(state[key].numel() for key in layer.tensors),
            "bytes": pack(module, layer).raw_bytes,
        }
        for layer in find_layers(module)
    ]
    if as_json:
        print_json({"layers": rows})
        return
    print_table(tuple(rows[0]), (tuple(row.values()) for row in rows), "no layers")
    total = sum(int(row["parameters"]) for row in rows)
    print(f"{total} parameters, {data_size(sum(int(row['bytes']) for row in rows))}")


def _ms(cost: int) -> str:
    return f"{cost / COSTS_PER_MS:.2f} ms"
