"""A peer from its settings to its end: the place where core, net, web and learn meet.

Rules of this file: data and settings are checked before anything is opened; a stop by the user is a
success.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mfd.cli.config import Settings, read_secret
from mfd.cli.errors import HINT, Bug, Misuse
from mfd.cli.plans import parse_recipe
from mfd.cli.tokens import admission, revocations
from mfd.core.config import Config
from mfd.core.events import CommandFailed
from mfd.core.peer import Peer
from mfd.net.addresses import is_any, parse_listen, why_deaf
from mfd.net.driver import Node, NodeError
from mfd.net.emulation import Wire
from mfd.net.handshake import Terms
from mfd.net.keys import KeyFileError, KeyPair, parse_peer_id, verify
from mfd.net.sealing import Sealing
from mfd.net.tls import Tls
from mfd.net.trainerpipe import TrainerPipe
from mfd.topology.values import parse_bytes
from mfd.web.api import routes

__all__ = [
    "Started",
    "check_holdings",
    "default_state",
    "describe",
    "make_node",
    "run",
    "settle_port",
]

Json = dict[str, Any]
SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Started:
    """What the owner of a peer is told when it runs."""

    peer: str
    join: str
    status: str
    state: str


def check_holdings(settings: Settings) -> None:
    """Find what is wrong with the data of this peer, before anything starts. Raises: Misuse."""
    if not settings.hold and settings.resident:
        raise Misuse("--resident is for peers that hold data (--hold): others learn nothing")
    if not settings.hold:
        return  # a relay loads nothing of the learner
    from mfd.learn.errors import HoldingError
    from mfd.learn.holdings import check

    for name, address in settings.hold.items():
        try:
            check(address, allow_py=settings.allow_py)
        except HoldingError as exc:
            hint = "; set allow_py = true in mfd.toml" if address.startswith("py:") else ""
            raise Misuse(f"--hold {name}: {exc}{hint}") from exc


def settle_port(listen: str) -> str:
    """Choose a free port where the address leaves it open, so that the state can be named by it.

    Raises: Misuse where the address is not this machine's.
    """
    host, port = parse_listen(listen)
    if port:
        return listen
    try:
        with socket.create_server((host, 0), family=_family(host)) as probe:
            port = probe.getsockname()[1]
    except OSError as exc:
        raise Misuse(f"address {listen} {why_deaf(exc)}") from exc
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def default_state(listen: str, name: str) -> Path:
    """Return `./mfd-state/NAME`, or the port where the peer has no name."""
    return Path("mfd-state") / (name.replace("/", "_") or str(parse_listen(listen)[1]))


def make_node(settings: Settings, state: Path, on_report: Callable[[Json], None]) -> Node:
    """Join the parts. Raises: Misuse."""
    allow = None if settings.allow is None else frozenset(map(parse_peer_id, settings.allow))
    key = read_secret(settings.network_key_file, "network key file")
    token = read_secret(settings.api_token_file, "API token file")
    try:
        keys = KeyPair.load_or_create(state / "key")
        terms = Terms(settings.network, key, allow)
    except (KeyFileError, ValueError) as exc:
        raise Misuse(str(exc)) from exc
    who = admission(
        settings.network,
        settings.issuers,
        settings.token,
        keys.public_key,
        holds=bool(settings.hold),
    )
    void = revocations(settings.network, settings.revoked)
    config = replace(_config(settings), issuers=who.issuers, token=who.token, revoked=void)
    core = Peer(signer=keys, verify=verify, config=config, seed=os.urandom(32), sealer=Sealing())
    node = Node(
        core,
        keys,
        state=state,
        listen=settings.listen,
        config=config,
        terms=terms,
        holdings=settings.hold,
        trainer=TrainerPipe(
            allow_py=settings.allow_py,
            threads=settings.threads,
            memory=parse_bytes(settings.memory),
            resident=parse_recipe(settings.resident) if settings.resident else None,
            folder=state / "resident",
            task_seconds=settings.task_seconds,
        ),
        tls=Tls.fresh() if settings.tls else None,
        costs=settings.costs,
        emulate=_wires(settings),
        advertise=settings.advertise,
        lan=settings.lan,
        on_report=on_report,
    )
    node.add_routes(routes(node, token=token.decode("utf-8", errors="replace")))
    return node


def _wires(settings: Settings) -> dict[str, Wire] | None:
    if settings.emulate is None:
        return None
    return {address: Wire(**link.model_dump()) for address, link in settings.emulate.items()}


def _config(settings: Settings) -> Config:
    return Config(
        network=settings.network,
        custodian=settings.custodian,
        slots=settings.slots,
        capacity=settings.capacity,
        whole_bytes_max=parse_bytes(settings.whole),
        lease_us=round(settings.lease_seconds * SECOND_US),
        errand_us=round(settings.errand_seconds * SECOND_US),
        open_network=settings.open_network is not False,
        active_target=settings.neighbours,
        active_max=settings.neighbours + 2,
        passive_max=settings.known,
        links_max=settings.links_max,
    )


async def run(
    node: Node, settings: Settings, told: Callable[[Node], None], *, until_eof: bool = False
) -> None:
    """Run a peer until the user stops it; `told` is called once it is ready.

    `until_eof`: the end of standard input stops it too, so that it ends with whoever started it.

    Raises: Misuse, Bug.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if until_eof:
        loop.add_reader(sys.stdin.fileno(), _stop_at_eof, stop)
    serving = loop.create_task(_serve(node, settings, told))
    stopping = loop.create_task(stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stop.is_set():
        serving.cancel()
        await asyncio.wait((serving,))
    if not serving.cancelled():
        serving.result()


def _stop_at_eof(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stop.set()


async def _serve(node: Node, settings: Settings, told: Callable[[Node], None]) -> None:
    try:
        async with node:
            for address in settings.join:
                node.join(address)
            told(node)
            # a stop cancels this wait, and must not cancel what the node still looks at
            failure = await asyncio.shield(node.failed)
            raise Bug(f"{failure}; {HINT}") from failure
    except (NodeError, CommandFailed) as exc:
        raise Misuse(str(exc)) from exc


def describe(node: Node, settings: Settings, state: Path) -> Started:
    """Return what others need to know of a running peer."""
    host, port = parse_listen(settings.listen)
    join, scheme = node.join_line, "https" if settings.tls else "http"
    if is_any(host):  # others need an address that leads here
        join = join.replace(f"mfd://{node.address}", f"mfd://{_own_address(host)}:{port}", 1)
        host = "::1" if ":" in host else "127.0.0.1"
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Started(node.status()["peer"], join, f"{scheme}://{authority}/", str(state))


def _own_address(host: str) -> str:
    """The address from which this machine would reach others; connecting UDP sends nothing."""
    family = _family(host)
    target = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            found = str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()
    return f"[{found}]" if ":" in found else found
