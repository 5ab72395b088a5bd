"""The verbs that move models: send, get, trace."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfd.cli.client import Client, Unreachable
from mfd.cli.errors import CommandError, Misuse, nearest
from mfd.cli.view import brief, console, data_size, hop_line, print_json, report_line
from mfd.packet.manifest import Kind

if TYPE_CHECKING:
    from mfd.cli.models import HfOrder
    from mfd.packet.plan import Plan

__all__ = ["Order", "get", "send", "trace"]

Json = dict[str, Any]

MODEL_BYTES_MAX = 16 << 30
STORY = {
    "arrived",
    "chosen",
    "part",
    "handed",
    "measured",
    "merged",
    "skipped",
    "stop",
}  # and what goes wrong is always shown
HOME = "done"  # the role of a walker whose journey is over


@dataclass(frozen=True, slots=True)
class Order:
    """What `mfd send` was told, before it is checked."""

    recipe: str | None
    plan: Path | None
    over: Mapping[str, Any]  # fields of the plan; None: not given
    sets: Sequence[str]
    init: Path | None
    key: Path | None
    hf: HfOrder | None = None


def send(
    order: Order, api: str | None, token_file: Path | None, *, follow: bool, out: Path | None
) -> None:
    """Make a walker, hand it to a peer, and follow it home."""
    from mfd.cli.fit import check_fit
    from mfd.cli.models import from_hf, with_base
    from mfd.cli.plans import make_plan
    from mfd.cli.saving import wrong_folder
    from mfd.cli.sending import build, make_walker, user_key
    from mfd.core.ages import walkers_of

    _check_out(out)
    if out is not None and not follow:
        raise Misuse("--out needs --follow: the model is not home before; `mfd get` saves it later")
    if order.hf is not None and order.recipe is not None and not order.recipe.endswith(".toml"):
        raise Misuse(f"two models are given, {order.recipe} and --hf {order.hf.place}: give one")
    if order.hf is None and str(order.init) == "random":
        raise Misuse(
            "--init random is for --hf: the values of a recipe are random by --seed anyway"
        )
    client = Client(api, token_file)
    table = _gather(order)
    told = client.get("status")
    home = bytes.fromhex(told["peer"])
    module = None
    if order.hf is not None:
        hf = replace(order.hf, init=order.init, seed=int(table.get("seed", 0)))
        table["recipe"], module = from_hf(hf, table.get("recipe"))
    plan = make_plan(_with_task(table), home)
    if module is None:
        check_fit(plan, _samples_at(told, plan))
        module = build(plan.recipe, seed=plan.seed, init=order.init)
    else:
        check_fit(plan, _samples_at(told, plan), module)
    plan = with_base(plan, module)
    if out is not None and (wrong := wrong_folder(out, plan)) is not None:
        raise Misuse(wrong)
    walkers = []
    for _ in range(walkers_of(plan)):
        walker, parts = make_walker(module, plan, user_key(order.key))
        size = data_size(sum(memoryview(part).nbytes for part in parts))
        client.post_walker(parts)
        print(f"walker {walker} ({size}) is at {brief(home.hex())}", flush=True)
        walkers.append(walker)
    _say_who_is_missing(told, plan)
    if follow:
        _follow(client, walkers, out)
        return
    for walker in walkers:
        print(f"follow it with: {_again(client, walker)}")


def _samples_at(told: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """What samples are like that the plan asks for and that the asked peer holds itself."""
    from mfd.core.names import beneath
    from mfd.learn.samples import Sample

    forms = told.get("forms") or {}
    held = {name: Sample.read(forms[name]) for name in beneath([*plan.names, *plan.verify], forms)}
    return {f"{name} at the peer asked": one for name, one in held.items() if one is not None}


def _say_who_is_missing(told: Mapping[str, Any], plan: Plan) -> None:
    """Say on stderr which data the asked peer knows no holder of: a wrong name waits for ever."""
    names = (str(route["name"]) for route in told.get("routes", []))
    known = {name for name in names if not name.startswith("@")}  # the others name a peer
    for name in [*plan.names, *plan.verify]:
        if name not in known:
            near = nearest(name, known) if known else "it knows of no data at all"
            print(
                f"mfd: {brief(told['peer'])} knows no holder of {name} so far, and the model waits "
                f"for one; {near}",
                file=sys.stderr,
            )


def _with_task(table: dict[str, Any]) -> dict[str, Any]:
    """A model knows whether it answers once a row or once a token."""
    if "task" in table or not table.get("recipe"):
        return table
    from mfd.learn.recipes import task_of

    return {**table, "task": task_of(table["recipe"])}


def _gather(order: Order) -> dict[str, Any]:
    """Join recipe, plan file and flags; flags count most. Raises: Misuse."""
    from mfd.cli.plans import join_plan, parse_recipe, parse_sets, read_plan

    recipe, path = order.recipe, order.plan
    if recipe is not None and recipe.endswith(".toml"):
        if path is not None:
            raise Misuse(f"two plan files are given, {recipe} and {path}: give one")
        path, recipe = Path(recipe), None
    over = {key: value for key, value in order.over.items() if value not in (None, [])}
    return join_plan(
        read_plan(path) if path is not None else {},
        {"recipe": parse_recipe(recipe)} if recipe is not None else {},
        parse_sets(order.sets),
        over,
    )


def get(client: Client, prefix: str, out: Path) -> None:
    """Save the newest version of a walker that a peer holds; of siblings that are home, the one
    that has seen what all of them have.
    """
    from mfd.cli.saving import open_model, save

    _check_out(out)
    if not prefix:
        raise Misuse("the id of the walker is empty: `mfd status` lists them")
    heir = client.find_walker(prefix).get("heir") or prefix
    body = client.model(heir, MODEL_BYTES_MAX)
    packet = open_model(memoryview(body), f"the model of {prefix}")
    save(packet, body, out)
    manifest = packet.manifest
    alone = manifest.kind is Kind.ADAPTER and out.suffix != ".mfd"
    what = "adapters without their base, " if alone else ""
    size = data_size(out.stat().st_size if out.is_file() else len(body))
    what += size if out.is_file() else f"from a packet of {size}"
    print(f"{out}: version {manifest.seq} of {brief(manifest.walker.hex())}, {what}")


def _check_out(out: Path | None) -> None:
    """Find out before a long journey. Raises: Misuse."""
    if out is None:
        return
    from mfd.cli.saving import check_out

    if (wrong := check_out(out)) is not None:
        raise Misuse(wrong)


def trace(client: Client, prefix: str, *, follow: bool, out: Path | None, as_json: bool) -> None:
    """Print what a peer knows of a walker's journey."""
    _check_out(out)
    if not prefix:
        raise Misuse("the id of the walker is empty: `mfd status` lists them")
    if out is not None and not follow:
        raise Misuse("--out needs --follow; `mfd get` saves what a peer holds now")
    if follow and as_json:
        raise Misuse("--follow and --json do not go together: poll `mfd trace --json`")
    if follow:
        _follow(client, [client.find_walker(prefix)["walker"]], out)
        return
    reports = client.reports(prefix)
    if as_json:
        print_json({"reports": reports})
    elif reports:
        _print(reports)
    else:
        walker = client.find_walker(prefix)
        state = walker["activity"] or walker["role"]
        print(f"{brief(walker['walker'])}: {state}; this peer has no report of it")


def _follow(client: Client, walkers: Sequence[str], out: Path | None) -> None:
    """Print reports until the walkers are home. Ctrl-C ends the watching, not the journey."""
    again = " and ".join(_again(client, walker) for walker in walkers)
    try:
        stops = _watch(client, walkers)
    except KeyboardInterrupt:
        print(f"\nthe walker travels on; follow it again with: {again}")
        return
    except Unreachable as exc:
        raise CommandError(f"{exc}; then follow the walker again with: {again}") from exc
    if out is not None:
        get(client, walkers[0], out)
    if stops == 0:
        raise CommandError(
            "the model is home as it went: nobody could train it; the reasons stand above"
        )


def _watch(client: Client, walkers: Sequence[str]) -> int | None:
    """Print until all are home; return how many stops they made, or None where nobody knows."""
    left, stops = set(walkers), 0
    for reports in client.follow(walkers[0] if len(walkers) == 1 else ""):
        told = [report for report in reports if report.get("walker") in walkers]
        _print(told, name=len(walkers) > 1)
        arrived = [report for report in told if report["kind"] == "arrived"]
        stops += sum(int(report.get("stops", 0)) for report in arrived)
        left -= {report["walker"] for report in arrived}
        if not left:
            return stops
        # A peer whose history was lost has forgotten its reports, but not its walkers.
        if not reports and all(client.find_walker(walker)["role"] == HOME for walker in left):
            print("home")
            return None
    return None


def _print(reports: Sequence[Json], *, name: bool = False) -> None:
    """Print the story; `name` of which walker, where there are several."""
    out = console()
    for report in reports:
        told = {key: value for key, value in report.items() if key != "walker"}
        if hop_line(report) is not None or report["kind"] not in STORY:
            whose = f"{brief(str(report['walker']))} " if name else ""
            out.print(report_line(told, whose), soft_wrap=True)


def _again(client: Client, walker: str) -> str:
    return f"mfd trace {brief(walker)} --follow --api {client.url}"
