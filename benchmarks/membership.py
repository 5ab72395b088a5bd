"""Membership on real sockets: joining, idle cost, a killed peer, a silent peer.

    python benchmarks/membership.py --peers 8 --idle 60

Starts peers as processes on the loopback interface that know one address, and prints how long it
took until all had enough neighbours; what an idle peer writes to its links (counted by the peers
above TCP; a test computes what TLS and TCP/IP add); how long until everybody had dropped a peer
whose process was killed, and one that was stopped (SIGSTOP: its sockets stay open).
Exit code 1 where a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from mfd.cli.client import Client
from mfd.cli.islands import islands, sentence, survey

JOIN_SECONDS_MAX = 3.0
IDLE_BYTES_MAX = 1_000
CLOSED_SECONDS_MAX = 1.0
SILENT_SECONDS_MAX = 8.0
LOOK_SECONDS = 0.02
Json = dict[str, Any]


class Peer:
    def __init__(self, folder: str, number: int, join: str) -> None:
        command = [sys.executable, "-m", "mfd.cli.peer", "--json", "--until-eof"]
        command += ["--state", f"{folder}/{number}", *(["--join", join] if join else [])]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.id: str = told["peer"]
        self.client = Client(told["status"])
        self.address = told["status"].removeprefix("http://").rstrip("/")

    def status(self) -> Json:
        return self.client.get("status")

    def neighbours(self) -> set[str]:
        return {link["peer"] for link in self.status()["links"] if link["active"]}

    def sent_bytes(self) -> int:
        told = self.status()["bytes"]
        return int(told["control_out"] + told["bulk_out"])


def until(condition: Callable[[], bool], seconds: float) -> float:
    """Return after how many seconds the condition holds; `seconds` if it does not."""
    start = time.monotonic()
    while not condition() and time.monotonic() - start < seconds:
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - start


def dropped_by_all(peer: Peer, others: list[Peer], seconds: float) -> tuple[float, set[str]]:
    waiting = list(others)

    def gone() -> bool:
        waiting[:] = [other for other in waiting if peer.id in other.neighbours()]
        return not waiting

    took = until(gone, seconds)
    drops = [other.status()["members"]["dropped"] for other in others]
    last = [[d["reason"] for d in dropped if d["peer"] == peer.id][-1:] for dropped in drops]
    return took, {reason for reasons in last for reason in reasons}


def measure(folder: str, count: int, idle: float) -> int:
    first = Peer(folder, 0, "")
    peers = [first]
    missed = 0

    def check(what: str, value: float, bound: float, unit: str) -> None:
        nonlocal missed
        missed += value > bound
        print(f"{what:<58} {value:8.2f} {unit:<4} at most {bound:g}", flush=True)

    try:
        peers += [Peer(folder, number, first.address) for number in range(1, count)]
        enough = min(3, count - 1)
        took = until(lambda: all(len(peer.neighbours()) >= enough for peer in peers), 60)
        check(f"{enough} neighbours each, after the last had started", took, JOIN_SECONDS_MAX, "s")
        time.sleep(5)  # the views settle
        before = [peer.sent_bytes() for peer in peers]
        time.sleep(idle)
        rates = [(peer.sent_bytes() - b) / idle for peer, b in zip(peers, before, strict=True)]
        check("idle peer, written to links, mean", sum(rates) / count, IDLE_BYTES_MAX, "B/s")
        check("idle peer, written to links, most", max(rates), IDLE_BYTES_MAX, "B/s")
        killed = peers.pop()
        killed.process.kill()
        took, reasons = dropped_by_all(killed, peers, 30)
        check(f"killed: dropped by all ({', '.join(reasons)})", took, CLOSED_SECONDS_MAX, "s")
        silent = peers.pop()
        os.kill(silent.process.pid, signal.SIGSTOP)
        took, reasons = dropped_by_all(silent, peers, 60)
        # a machine that is late makes its peers patient; and a look at all takes time too
        patience = max(peer.status()["members"]["patience"] for peer in peers)
        bound = SILENT_SECONDS_MAX * patience + 0.5
        check(f"silent: dropped by all (patience {patience})", took, bound, "s")
        for reason in sorted(reasons):
            print(f"    {reason}")
        os.kill(silent.process.pid, signal.SIGCONT)
        took = until(lambda: len(silent.neighbours()) >= min(3, len(peers)), 60)
        print(f"{'silent: has its neighbours again after':<58} {took:8.2f} s")
        found = survey(first.status(), lambda address: Client(f"http://{address}").get("status"))
        print(sentence(islands(found)))
        peers.append(silent)
    finally:
        for peer in peers:
            peer.process.send_signal(signal.SIGINT)
        for peer in peers:
            peer.process.wait(10)
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=int, default=8)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        missed = measure(folder, args.peers, args.idle)
    print("all bounds kept" if not missed else f"{missed} bounds missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
