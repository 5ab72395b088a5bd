r"""Bytes between peers on real sockets: raw TCP, the bare link, custodian to custodian, relays.

    python benchmarks/transfer.py [rows ...] [--mib 64] [--runs 3]      rows: see --help

Every peer is a process of its own on the loopback address; objects lie in a folder of /dev/shm, so
that no disk is measured. GB/s are 1e9 raw bytes a second, medians; a row's ratio is to the row
named, or the slower of two, measured in the same run before it. CPU seconds are those of all
processes per GB. A shared machine's readings wander: compare ratios, and CPU seconds before wall
clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

MIB = 1 << 20
FRAME_BYTES = 64 << 10
Json = dict[str, Any]


# what runs in the children


def say(**fields: Any) -> None:
    print(json.dumps({**fields, "cpu": time.process_time()}), flush=True)


def raw_sink(told: Json) -> None:
    """Receive a number of bytes over one connection, into one buffer, and answer with one byte."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        say(kind="started", address=server.getsockname()[1])
        plain, _ = server.accept()
        stream: socket.socket = plain
        if told["tls"]:
            stream = tls_pair().server.wrap_socket(plain, server_side=True)
        buffer = memoryview(bytearray(256 << 10))
        left = told["bytes"]
        while left:
            count = stream.recv_into(buffer)
            left -= count
        stream.sendall(b"!")
        say(kind="done")
        stream.recv(1)


def raw_source(told: Json) -> None:
    plain = socket.create_connection(("127.0.0.1", told["join"][0]))
    stream: socket.socket = tls_pair().client.wrap_socket(plain) if told["tls"] else plain
    data = memoryview(os.urandom(MIB))
    say(kind="started", address=0)
    sys.stdin.readline()
    say(kind="begin")
    begin = time.perf_counter()
    left = told["bytes"]
    while left:
        size = min(left, len(data))
        stream.sendall(data[:size])
        left -= size
    stream.recv(1)
    say(kind="done", seconds=time.perf_counter() - begin)
    stream.close()


def tls_pair() -> Any:
    from mfd.net.tls import Tls

    return Tls.fresh()


class Bare:
    """A core without a protocol: counts bulk bytes, answers once all are there."""

    def __init__(self, keys: Any, total: int) -> None:
        self.id = keys.public_key
        self.left = total
        self.links: list[int] = []
        self.answered = asyncio.Event()
        self.linked = asyncio.Event()

    def handle(self, event: Any, now_us: int) -> list[Any]:
        from mfd.core.effects import Send
        from mfd.core.events import LinkUp, Received

        match event:
            case Received(link=link, frame=frame):
                if len(frame) == 1:
                    self.answered.set()
                    return []
                self.left -= len(frame)
                if self.left == 0:
                    return [Send(link, "control", (b"!",))]
            case LinkUp(link=link):
                self.links.append(link)
                self.linked.set()
        return []

    def deadline_us(self) -> int | None:
        return None

    def status(self) -> Any:
        from mfd.core.status import Status

        return Status(self.id.hex(), "mfd", (), (), (), {}, 0, 0)


async def bare(told: Json) -> None:
    """The upgraded link alone: frames of 64 KiB on bulk."""
    from mfd.net.driver import Node
    from mfd.net.keys import KeyPair

    keys = KeyPair.from_seed(bytes([told["number"]]) * 32)
    core = Bare(keys, told["bytes"])
    with tempfile.TemporaryDirectory(dir=told["folder"]) as folder:
        async with Node(core, keys, state=Path(folder), **options(told)) as node:
            say(kind="started", address=node.join_line)
            for address in told["join"]:
                node._transport.dial(address)
            if told["join"]:
                await core.linked.wait()
                say(kind="linked")
            await line()
            if told["join"]:
                say(kind="begin")
                begin = time.perf_counter()
                await blast(node, core.links[0], told["bytes"])
                await core.answered.wait()
                say(kind="done", seconds=time.perf_counter() - begin)
                await line()
            say(kind="done")


async def blast(node: Any, link: int, total: int) -> None:
    connection = node._transport.links[link].bulk
    frame = memoryview(os.urandom(FRAME_BYTES))
    left = asyncio.Event()
    under_way = 0

    def written(size: int) -> None:
        nonlocal under_way
        under_way -= size
        left.set()

    connection.on_written = written
    while total:
        size = min(total, FRAME_BYTES)
        connection.send((frame[:size],))
        total -= size
        under_way += size + 4
        while under_way > 16 * FRAME_BYTES:  # as much as the core leaves with its driver
            left.clear()
            await left.wait()


async def line() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def keeping(told: Json) -> None:
    """What a receiver's disk thread does, alone: hash chunks, write them, make objects durable."""
    from mfd.core.effects import Keep, Store
    from mfd.net.store import DiskStore
    from mfd.packet.chunks import Encoding
    from mfd.packet.objects import chunk_digest, chunk_root

    layer = 16 * MIB
    raw = memoryview(os.urandom(layer))
    chunks = tuple(chunk_digest(raw[at : at + MIB]) for at in range(0, layer, MIB))
    digest = chunk_root(layer, chunks)
    store = DiskStore(Path(told["folder"]))
    say(kind="started", address=0)
    sys.stdin.readline()
    say(kind="begin")
    begin = time.perf_counter()
    for _ in range(max(1, told["bytes"] // layer)):
        for at in range(len(chunks)):
            body = raw[at * MIB : (at + 1) * MIB]
            store.perform(Keep(1, digest, layer, at, chunks, Encoding.RAW, body))
        store.perform(Store(2, objects=(digest,)))
        store.perform(Store(3, drop=(digest,)))  # so that the next one is written again
    say(kind="done", seconds=time.perf_counter() - begin)
    sys.stdin.readline()


class Idle:
    """A trainer that is asked for nothing before the measurement ends."""

    def hold(self, name: str, address: str) -> None:
        pass

    async def describe(self, name: str) -> Mapping[str, Any]:
        return {"samples": 100}

    def told(self) -> Mapping[str, Any]:
        return {"forms": {}, "resident": None}

    async def perform(self, *_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


async def custodian(told: Json) -> None:
    """A whole peer; with `walker` it is home of one that goes to the nearest holder at once."""
    from mfd.core.peer import Peer
    from mfd.net.driver import Node
    from mfd.net.keys import KeyPair, verify
    from mfd.net.sealing import Sealing

    keys = KeyPair.from_seed(bytes([told["number"]]) * 32)
    config = config_of(told)
    sealer = None if told.get("plain") else Sealing()
    core = Peer(signer=keys, verify=verify, config=config, seed=os.urandom(32), sealer=sealer)
    holdings = {"data": "any"} if told.get("hold") else {}
    with tempfile.TemporaryDirectory(dir=told["folder"]) as folder:
        node = Node(
            core,
            keys,
            state=Path(folder),
            config=config_of(told),
            holdings=holdings,
            trainer=Idle(),
            **options(told),
        )
        async with node:
            say(kind="started", address=node.join_line)
            before_kib = peak_kib()
            for address in told["join"]:
                node.join(address)
            watching = asyncio.create_task(watch(node))
            if told.get("walker"):
                walker_parts = injection(keys, told["bytes"])
                while not node.status()["routes"]:
                    await asyncio.sleep(0.01)
                say(kind="linked")
                await line()
                await node.inject(pieces(walker_parts))
                say(kind="begin")  # a moment late: the offer is on its way
                pings: list[float] = []
                if told.get("probe"):
                    probe(node, pings)
                after = 0
                while not (handed := [r for r in node.reports(after=0) if r["kind"] == "handed"]):
                    await node.wait_reports(after=after, seconds=60)
                    after += 1
                told_bytes = {k: handed[0][k] for k in ("seconds", "sent_bytes")}
                say(kind="done", **told_bytes, pings=sorted(pings))
            await line()
            watching.cancel()
            say(kind="done", grown_kib=peak_kib() - before_kib)


async def watch(node: Any) -> None:
    """Tell of links that come and go."""
    after = 0
    while True:
        for report in node.reports(after=after):
            after = report["n"]
            if report["kind"] in ("linked", "unlinked"):
                say(kind={"linked": "linked_up"}.get(report["kind"], "unlinked"))
        await node.wait_reports(after=after, seconds=60)


def probe(node: Any, found: list[float]) -> None:
    """Send a PING on every link each 20 ms, and note how long its PONG takes, in ms."""
    from mfd.core.effects import Send
    from mfd.core.events import Received
    from mfd.core.frames import Ping, Pong, decode_frame, encode_frame

    loop, post, first = asyncio.get_running_loop(), node.post, 1 << 40
    sent: dict[int, float] = {}

    def hear(event: Any) -> None:
        if isinstance(event, Received) and event.frame[0] == 2:
            pong = decode_frame(event.frame)
            assert isinstance(pong, Pong)
            if pong.echo in sent:
                found.append(1e3 * (loop.time() - sent.pop(pong.echo)))
        post(event)

    def ask() -> None:
        for link in node._transport.links:
            number = first + len(found) + len(sent)
            sent[number] = loop.time()
            node._transport.send(Send(link, "control", (encode_frame(Ping(number)),)))
        loop.call_later(0.02, ask)

    node._transport._post = hear
    ask()


def peak_kib() -> int:
    """Most memory that this process has had so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def config_of(told: Json) -> Any:
    from mfd.core.config import Config

    return Config(custodian=bool(told.get("walker")), **told.get("config", {}))


def options(told: Json) -> Json:
    from mfd.net.emulation import Wire

    wire = told.get("wire")
    return {
        "tls": tls_pair() if told["tls"] else None,
        "emulate": None if wire is None else {at: Wire(*wire) for at in told["join"]},
    }


def injection(home: Any, size: int) -> list[Any]:
    """A walker of layers of 16 MiB whose bytes no encoding makes smaller."""
    import numpy as np

    from mfd.core.certificates import Genesis, seal_genesis, walker_id
    from mfd.core.custody import PLAN_DOMAIN
    from mfd.net.injection import pack_injection
    from mfd.packet.objects import object_digest
    from mfd.packet.packet import Packet, encode
    from mfd.packet.plan import Plan, encode_plan
    from mfd.packet.signing import seal

    plan = Plan({"zoo": "any"}, ("data",), home.public_key, laps=1, full_laps=0)
    record = seal(PLAN_DOMAIN, encode_plan(plan), home)
    genesis = seal_genesis(
        Genesis(home.public_key, b"n" * 16, bytes(32), object_digest(record), 2, "manual"), home
    )
    dice = np.random.default_rng(1)
    layer = 16 * MIB
    arrays = {
        f"l{at}": {"w": dice.integers(0, 256, min(layer, size - at), dtype=np.uint8)}
        for at in range(0, size, layer)
    }
    packet = Packet.from_tensors(
        arrays, signer=home, walker=walker_id(genesis), plan=object_digest(record)
    )
    return pack_injection(genesis, record, encode(packet))


async def pieces(parts: list[Any]) -> AsyncIterator[bytes]:
    for part in parts:
        view = memoryview(part).cast("B")
        for at in range(0, len(view), MIB):
            yield bytes(view[at : at + MIB])


ROLES: dict[str, Callable[[Json], Any]] = {
    "raw_sink": raw_sink,
    "raw_source": raw_source,
    "keeping": keeping,
    "bare": lambda told: asyncio.run(bare(told)),
    "custodian": lambda told: asyncio.run(custodian(told)),
}


# what runs in the parent


class Child:
    """One process with one role."""

    def __init__(self, role: str, **told: Any) -> None:
        # Ours, not the child's: a child that is killed cleans nothing up, and this is memory.
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm")
        told = {"role": role, "join": [], "tls": False, "folder": self.folder.name, **told}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--role", json.dumps(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self.hear("started")["address"]

    def hear(self, kind: str) -> Json:
        assert self.process.stdout is not None
        while text := self.process.stdout.readline():
            told: Json = json.loads(text)
            if told["kind"] == kind:
                self.cpu = told["cpu"]
                return told
        raise SystemExit("a child has died; its error stands above")

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def cpu_of(child: Child) -> float:
    """CPU seconds of a running process so far."""
    fields = Path(f"/proc/{child.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(children: list[Child], size: int) -> Json:
    """Let the last child begin; return seconds and CPU seconds per GB of all."""
    first = children[-1]
    first.go()
    first.hear("begin")
    before = sum(map(cpu_of, children))
    done = first.hear("done")
    spent = sum(map(cpu_of, children)) - before
    return {**done, "gbs": size / done["seconds"] / 1e9, "cpu_s": spent / size * 1e9}


def run_raw(size: int, *, tls: bool) -> Json:
    with ExitStack() as stack:
        sink = stack.enter_context(Child("raw_sink", bytes=size, tls=tls))
        told = {"bytes": size, "tls": tls, "join": [sink.address]}
        source = stack.enter_context(Child("raw_source", **told))
        return measure([sink, source], size)


def run_keeping(size: int) -> Json:
    with Child("keeping", bytes=size) as child:
        return measure([child], size)


def run_bare(size: int, *, tls: bool = False, **more: Any) -> Json:
    told = {"bytes": size, "tls": tls, **more}
    with ExitStack() as stack:
        sink = stack.enter_context(Child("bare", number=1, **told))
        source = stack.enter_context(Child("bare", number=2, join=[sink.address], **told))
        source.hear("linked")
        return measure([sink, source], size)


def run_custody(size: int, relays: int = 0, *, tls: bool = False, **more: Any) -> Json:
    told = {"bytes": size, "tls": tls, **more}
    with ExitStack() as stack:
        row = [stack.enter_context(Child("custodian", number=1, hold=True, **told))]
        for number in range(relays):
            join = [row[-1].address]
            child = Child("custodian", number=2 + number, join=join, **told)
            row.append(stack.enter_context(child))
        join = [row[-1].address]
        home = Child("custodian", number=2 + relays, join=join, walker=True, **told)
        row.append(stack.enter_context(home))
        home.hear("linked")
        found = measure(row, size)
        for child in row[1:-1]:
            child.go()
        found["relays"] = [child.hear("done") for child in row[1:-1]]
        return found


SLOW = (5_000, 100_000_000, 0.0)  # latency us, bits a second, loss
FAST = (1_000, 1_000_000_000, 0.0)
LOSSY = (5_000, 100_000_000, 0.001)

Row = tuple[str, str, Callable[[int], Json]]  # name, row(s) it is compared with, how
ROWS: list[Row] = [
    ("raw TCP", "", lambda size: run_raw(size, tls=False)),
    ("bare link", "raw TCP", run_bare),
    ("hash + store", "", run_keeping),
    ("custodians", "bare link | hash + store", run_custody),
    ("1 relay", "custodians", lambda size: run_custody(size, 1)),
    ("2 relays", "1 relay", lambda size: run_custody(size, 2)),
    ("raw TLS", "", lambda size: run_raw(size, tls=True)),
    ("bare link, TLS", "raw TLS", lambda size: run_bare(size, tls=True)),
    ("custodians, TLS", "bare link, TLS | hash + store", lambda size: run_custody(size, tls=True)),
    ("100M bare", "", lambda size: run_bare(size, wire=SLOW)),
    ("100M custodians", "100M bare", lambda size: run_custody(size, wire=SLOW)),
    ("100M 1 relay", "100M custodians", lambda size: run_custody(size, 1, wire=SLOW)),
    ("100M lossy bare", "100M bare", lambda size: run_bare(size, wire=LOSSY)),
    ("100M lossy", "100M lossy bare", lambda size: run_custody(size, wire=LOSSY)),
    ("1G bare", "", lambda size: run_bare(size, wire=FAST)),
    ("1G custodians", "1G bare", lambda size: run_custody(size, wire=FAST)),
    ("1G 1 relay", "1G custodians", lambda size: run_custody(size, 1, wire=FAST)),
    ("1G 2 relays", "1G 1 relay", lambda size: run_custody(size, 2, wire=FAST)),
]


def show_control(size: int) -> None:
    """Round trips on control while a transfer runs beside it, over one hop."""
    print("\ncontrol beside bulk        p50 ms   p99 ms    max ms   GB/s")
    ten = (5_000, 10_000_000, 0.0)
    for name, wire, share in (
        ("loopback", None, 4), ("1G", FAST, 2), ("100M", SLOW, 1), ("10M", ten, 0.125)
    ):  # fmt: skip
        told = run_custody(int(size * share), wire=wire, probe=True)
        pings = told["pings"]
        p50, p99 = (pings[int(len(pings) * part)] for part in (0.5, 0.99))
        print(f"{name:<24} {p50:8.2f} {p99:8.2f} {pings[-1]:9.2f} {told['gbs']:8.4f}", flush=True)


def show_detection() -> None:
    """How long a peer takes to see that its neighbour is gone."""
    for name, number in (("closed socket", signal.SIGKILL), ("silent peer", signal.SIGSTOP)):
        with ExitStack() as stack:
            one = stack.enter_context(Child("custodian", number=1))
            other = stack.enter_context(Child("custodian", number=2, join=[one.address]))
            other.hear("linked_up")
            begin = time.perf_counter()
            one.process.send_signal(number)
            other.hear("unlinked")
            print(f"{name:<24} seen after {time.perf_counter() - begin:6.3f} s", flush=True)


def show(rows: list[Row], size: int, runs: int) -> None:
    print(f"{size >> 20} MiB, medians of {runs} runs")
    print("row                        GB/s   CPU s/GB  ratio to")
    found: dict[str, list[Json]] = {name: [] for name, _, _ in rows}
    for _ in range(runs):
        for name, _, how in rows:
            found[name].append(how(size))
    for name, other, _ in rows:
        mine = [one["gbs"] for one in found[name]]
        cpu = statistics.median(one["cpu_s"] for one in found[name])
        ratio = ""
        others = [found[row] for row in other.split(" | ") if row in found]
        if others:  # of several rows the slower one is the limit
            limits = [min(one["gbs"] for one in run) for run in zip(*others, strict=True)]
            pairs = zip(mine, limits, strict=True)
            ratio = f"{statistics.median(a / b for a, b in pairs):5.2f} {other}"
        print(f"{name:<24} {statistics.median(mine):7.3f}  {cpu:8.3f}  {ratio}", flush=True)
        for one in found[name][-1].get("relays", []):
            print(f"    a relay's memory grew by {one['grown_kib'] / 1024:.1f} MiB at most")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "rows", nargs="*", help="; ".join([*(name for name, _, _ in ROWS), "control", "detection"])
    )
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--role", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role is not None:
        ROLES[args.role["role"]](args.role)
        return 0
    chosen = [row for row in ROWS if not args.rows or row[0] in args.rows]
    if chosen:
        show(chosen, args.mib * MIB, args.runs)
    if not args.rows or "control" in args.rows:
        show_control(args.mib * MIB)
    if not args.rows or "detection" in args.rows:
        show_detection()
    return 0


if __name__ == "__main__":
    sys.exit(main())
