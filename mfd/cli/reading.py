"""The verbs that only look: status, peers, routes, layers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mfd.cli.client import Client
from mfd.cli.view import brief, data_size, print_json, print_table, printable, span

if TYPE_CHECKING:
    from torch import nn

__all__ = ["everybody", "layers", "peers", "routes", "status"]

Json = dict[str, Any]
ASK_SECONDS = 3.0  # for one of many peers to answer
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
        "network": _network(told),
        "up": span(told["uptime_s"]),
        "holds": holdings or "nothing: a relay",
        **_resident(told.get("resident")),
        "links": _links(told),
        "routes": len(told["routes"]),
        "carried": data_size(sum(told["bytes"].values())),
        "store": f"{told['objects']} objects, {told['store']}",
    }
    for name, value in facts.items():
        print(f"{name:<8} {value}")
    for address, reason in told["members"]["unreachable"].items():
        print(f"no link  {printable(address)}: {printable(reason)}")
    if told["walkers"]:
        print()
        _print_walkers(told["walkers"])


def _resident(told: Json | None) -> Json:
    """The peer's own model, which walkers teach, if it has one."""
    if told is None:
        return {}
    from mfd.cli.plans import recipe_text

    ago = f", the last {span(time.time() - told['taught'])} ago" if told["taught"] else ""
    count = told["lessons"]
    taught = f"{count} lesson{'s' * (count != 1)}{ago}" if count else "not taught yet"
    recipe = printable(recipe_text(told["recipe"]))
    return {"resident": f"{recipe}, {data_size(told['bytes'])}, {taught}"}


def _network(told: Json) -> str:
    return f"{told['network']}, " + ("open" if told["members"]["open"] else "links are given")


def _links(told: Json) -> str:
    members = told["members"]
    parts = [str(sum(link["active"] for link in told["links"])), f"{len(members['known'])} known"]
    if members["lost"]:
        parts.append(f"{members['lost']} lost")
    if members["dropped"]:
        last = members["dropped"][-1]
        parts.append(
            f"last dropped {brief(last['peer'])} {span(last['ago_us'] / 1e6)} ago: "
            f"{printable(last['reason'])}"
        )
    return ", ".join(parts)


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
    """Print the links of a peer, whom else it knows, and why neighbours are none any more."""
    told = client.get("peers")
    if as_json:
        print_json(told)
        return
    members = told["members"]
    print_table(
        ("peer", "address", "dialled", "cost", "silent"),
        (
            (
                brief(link["peer"]),
                _place(link["address"]) + ("" if link["active"] else " (no neighbour yet)"),
                "here" if link["outbound"] else "there",
                _ms(link["cost"]),
                span(link["silent_us"] / 1e6),
            )
            for link in told["peers"]
        ),
        "no links: this peer is alone; join another with --join",
    )
    if members["known"]:
        print("\nknown")
        print_table(("peer", "address", "record", "failures"), map(_known, members["known"]), "")
    if members["dropped"]:
        print("\ndropped, newest last")
        print_table(
            ("peer", "address", "ago", "why"),
            (
                (
                    brief(d["peer"]),
                    _place(d["address"]),
                    span(d["ago_us"] / 1e6),
                    printable(d["reason"]),
                )
                for d in members["dropped"]
            ),
            "",
        )
    for address, reason in members["unreachable"].items():
        print(f"\nno link to {printable(address)}: {printable(reason)}")


def _place(address: str) -> str:
    """Host and port of a join line: the id has a column of its own."""
    return printable(address.removeprefix("mfd://").partition("/")[0])


def everybody(client: Client, *, as_json: bool) -> None:
    """Print all peers that can be found from one, and whether they form one network."""
    from mfd.cli.client import Client as Other
    from mfd.cli.islands import islands, sentence, survey

    scheme = "https" if client.url.startswith("https:") else "http"

    def ask(address: str) -> Json:
        return Other(f"{scheme}://{address}", anonymous=True, timeout=ASK_SECONDS).get("status")

    found = survey(client.get("status"), ask)
    parts = islands(found)
    if as_json:
        rows = [
            {
                "peer": seen.peer,
                "addresses": seen.addresses,
                "links": sorted(seen.links),
                "answers": seen.answers,
            }
            for seen in found.values()
        ]
        print_json({"peers": rows, "islands": parts})
        return
    print_table(
        ("peer", "address", "links"),
        (
            (
                brief(seen.peer),
                ", ".join(seen.addresses),
                len(seen.links) if seen.answers else "its API does not answer here",
            )
            for seen in found.values()
        ),
        "",
    )
    print(f"\n{sentence(parts)}")


def _known(peer: Json) -> tuple[str, ...]:
    failures = f"{peer['tries']}: {printable(peer['reason'])}" if peer["tries"] else ""
    age = span(peer["age_us"] / 1e6) + " old"
    return brief(peer["peer"]), ", ".join(peer["addresses"]), age, failures


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


def layers(module: nn.Module, *, as_json: bool) -> None:
    """Print the layers of a model and what each weighs; `tied`: other names of its tensors."""
    from mfd.cli.errors import CommandError
    from mfd.learn.errors import LearnError
    from mfd.learn.finding import find_layers, tied_names
    from mfd.learn.layers import raw_bytes

    try:
        found, tied = find_layers(module), tied_names(module)
    except LearnError as exc:
        raise CommandError(str(exc)) from exc
    state = module.state_dict()
    rows: list[dict[str, Any]] = []
    for layer in found:
        names = [name for name, owner in tied.items() if owner in layer.tensors]
        rows.append(
            {
                "index": layer.index,
                "name": layer.name,
                "tensors": len(layer.tensors),
                "parameters": sum(state[key].numel() for key in layer.tensors),
                "bytes": raw_bytes(module, layer),
                "tied": names if as_json else " ".join(names) or "-",
                "trains": not layer.frozen if as_json else "no" if layer.frozen else "yes",
            }
        )
    if as_json:
        print_json({"layers": rows})
        return
    print_table(tuple(rows[0]), (tuple(row.values()) for row in rows), "no layers")
    total = sum(int(row["parameters"]) for row in rows)
    print(f"{total} parameters, {data_size(sum(int(row['bytes']) for row in rows))}")


def _ms(cost: int) -> str:
    return f"{cost / COSTS_PER_MS:.2f} ms"
